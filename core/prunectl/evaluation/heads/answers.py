"""Heads that point at an answer in a text: its first and its last token."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidData, InvalidInput
from prunectl.evaluation import outputs, squad
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import UNLABELLED
from prunectl.evaluation.estimates import Array, Estimate, Mean
from prunectl.evaluation.heads.base import Answers, Asked, Batch, Head, inputs_of

LONGEST_ANSWER = 30
"""Tokens, as in SQuAD's usual evaluation."""
NOWHERE = -1
"""The place of no answer."""
Offsets = list[tuple[int, int]]


class AnswerHead(Head):
    """A context longer than the limit is read in windows that overlap by a quarter of it.

    ``places`` of a row are 0 at the tokens of the context and -100 elsewhere; targets are (first, last) token.
    """

    reports_loss = False  # it says little: of a window without the answer there is none

    def ask(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        examples: Sequence[Example],
        *,
        max_length: int,
        seed: int,
        replacements: Sequence[int] | None = None,
    ) -> Asked:
        assert tokenizer is not None, "no model of images answers questions"
        if not tokenizer.is_fast:
            raise InvalidInput(
                "answering questions needs a fast tokenizer, which knows where in the text each token is",
                hint="save the checkpoint with a tokenizer.json",
                field="task",
                value=self.task,
            )
        encoded, context = _windows(tokenizer, examples, max_length)
        taken = set(inspect.signature(model.base_model.forward).parameters)
        names = [name for name in encoded if name in taken]
        owners = [int(owner) for owner in encoded["overflow_to_sample_mapping"]]
        rows, beside, targets = [], [], []
        for index, owner in enumerate(owners):
            offsets: Offsets = encoded["offset_mapping"][index]
            places = [0 if part == context else UNLABELLED for part in encoded.sequence_ids(index)]
            rows.append({**{name: encoded[name][index] for name in names}, "places": places})
            beside.append(offsets)
            targets.append(_target(examples[owner], offsets, places))
        labelled = all(example.answers is not None for example in examples)
        return Asked(rows, targets if labelled else None, "data" if labelled else "model", owners, beside)

    def learn(self, asked: Asked, field: str) -> Asked:
        """One window an example: the first that holds the answer; of an unanswerable question the first."""
        kept: dict[int, int] = {}
        for index, owner in enumerate(asked.owners):
            readable = any(place != UNLABELLED for place in asked.rows[index]["places"])
            if owner not in kept and readable and (asked.targets is None or asked.targets[index] is not None):
                kept[owner] = index
        if not kept:
            raise InvalidData(f"no {field} example has an answer that fits the length limit", field=field)
        return asked.at(list(kept.values()))

    def targets(self, values: Sequence[Any]) -> Tensor:
        return torch.tensor([list(value) for value in values])

    def said(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Logits of the first and of the last token, ``[batch, 2, length]``, very low at padding."""
        return outputs.span_logits(model, inputs_of(batch))

    def loss(self, said: Tensor, batch: Batch) -> Tensor:
        """The mean of both cross-entropies over the tokens (Devlin et al. 2019, section 4.2)."""
        return cross_entropy(said.flatten(0, 1), batch["labels"].flatten())

    def own(self, said: Tensor, batch: Batch) -> list[Any]:
        first, last, _ = _best_spans(said, batch["places"] != UNLABELLED)
        return list(zip(first.tolist(), last.tolist(), strict=True))

    def answers(self, said: Tensor, batch: Batch) -> list[Answers]:
        first, last, score = _best_spans(said, batch["places"] != UNLABELLED)
        nothing = said[:, :, 0].sum(1)
        found = {"first": first, "last": last, "score": score.float(), "nothing": nothing.float()}
        arrays = {name: value.cpu().numpy() for name, value in found.items()}
        return [{name: array[row : row + 1] for name, array in arrays.items()} for row in range(len(said))]

    def gather(self, asked: Asked, answers: Sequence[Answers], examples: Sequence[Example], model: Any) -> Answers:
        """``start`` and ``end`` ``[texts]``, the answer's characters in the context by its best window, -1 for none,
        and its ``score``; with answers given ``exact`` and ``f1`` ``[texts]``.

        That there is no answer is an answer only where some question has none: then it is given where it scores more,
        by its lowest score in any window (Rajpurkar et al. 2018).
        """
        spans = np.full((len(examples), 2), NOWHERE, dtype=np.int64)
        scores = np.full(len(examples), -np.inf)
        nothing = np.full(len(examples), np.inf)
        for answer, owner, offsets in zip(answers, asked.owners, asked.beside, strict=True):
            nothing[owner] = min(nothing[owner], answer["nothing"][0])
            if answer["score"][0] > scores[owner]:
                scores[owner] = answer["score"][0]
                spans[owner] = offsets[int(answer["first"][0])][0], offsets[int(answer["last"][0])][1]
        if any(example.answers == () for example in examples):
            spans[nothing > scores] = NOWHERE
        readable = {owner for owner, row in zip(asked.owners, asked.rows, strict=True) if 0 in row["places"]}
        scores[[owner for owner in range(len(examples)) if owner not in readable]] = 0.0  # no token to point at
        arrays: Answers = {"start": spans[:, 0], "end": spans[:, 1], "score": scores}
        if asked.source == "data":
            rated = [
                squad.scores(
                    "" if start == NOWHERE else context_of(example)[start:end],
                    [text for text, _ in example.answers or ()],
                )
                for example, (start, end) in zip(examples, spans.tolist(), strict=True)
            ]
            arrays |= dict(zip(("exact", "f1"), np.array(rated, dtype=np.float64).T, strict=True))
        return arrays

    def estimates(self, arrays: Mapping[str, Array], seed: int) -> dict[str, Estimate]:
        text = np.arange(len(arrays["start"]))
        names = {"eval_exact_match": "exact", "eval_f1": "f1"}
        return {ours: Mean(arrays[name], text) for ours, name in names.items() if name in arrays}

    def likeness(self, mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, Estimate]:
        same = (mine["start"] == theirs["start"]) & (mine["end"] == theirs["end"])
        return {"eval_agreement": Mean(same.astype(np.float64), np.arange(len(same)))}


def context_of(example: Example) -> str:
    """Where the answer is looked for: what stands beside the question, else the text itself."""
    return example.text if example.text_pair is None else example.text_pair


def _windows(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> tuple[Any, int]:
    """(the tokenizer's answer with a row a window, which of a row's texts is the context)."""
    questions = ["" if example.text_pair is None else example.text for example in examples]
    asked = any(questions)
    room = max_length - tokenizer.num_special_tokens_to_add(pair=asked)
    longest = room // 2
    if longest < 1:
        raise InvalidInput(
            f"max-length {max_length} leaves no room for a question and its context",
            hint="use 64 or more",
            field="max_length",
            value=max_length,
        )
    given = (
        [[_cut(tokenizer, question, longest) for question in questions], [context_of(e) for e in examples]]
        if asked
        else [[context_of(example) for example in examples]]
    )
    encoded = tokenizer(
        *given,
        truncation="only_second" if asked else "only_first",
        max_length=max_length,
        stride=min(max_length // 4, room - longest - 1),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=True,
        padding=False,
    )
    return encoded, int(asked)


def _cut(tokenizer: PreTrainedTokenizerBase, question: str, tokens: int) -> str:
    """A question of so many tokens at most, so that some of the context fits beside it."""
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return question if len(offsets) <= tokens else question[: offsets[tokens - 1][1]]


def _target(example: Example, offsets: Offsets, places: Sequence[int]) -> tuple[int, int] | None:
    """The first and the last token of the first answer that this window holds; of no answer the first token of all;
    None where the window doesn't hold it.
    """
    if example.answers == ():
        return 0, 0
    inside = [index for index, place in enumerate(places) if place != UNLABELLED]
    for text, start in example.answers or ():
        end = start + len(text)
        tokens = [index for index in inside if offsets[index][0] < end and offsets[index][1] > start]
        if tokens and offsets[tokens[0]][0] <= start and offsets[tokens[-1]][1] >= end:
            return tokens[0], tokens[-1]
    return None


def _best_spans(said: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(first, last, score) ``[batch]`` of the best span of at most 30 tokens within ``allowed`` ``[batch, length]``."""
    length = said.shape[-1]
    start, end = (said[:, side].masked_fill(~allowed, -torch.inf) for side in (0, 1))
    steps = torch.arange(length, device=said.device)
    apart = steps[None, :] - steps[:, None]
    scores = start[:, :, None] + end[:, None, :]
    scores = scores.masked_fill((apart < 0) | (apart >= LONGEST_ANSWER), -torch.inf)
    best = scores.flatten(1).max(-1)
    return best.indices // length, best.indices % length, best.values
