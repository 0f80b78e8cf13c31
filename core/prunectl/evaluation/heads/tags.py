"""Heads that name a class of each word: tags of entities or parts of speech."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidData, InvalidInput
from prunectl.evaluation import outputs
from prunectl.evaluation.data import Example, label_names
from prunectl.evaluation.encoding import UNLABELLED, pad_labels
from prunectl.evaluation.entities import entity_counts, has_entities
from prunectl.evaluation.estimates import Array, Estimate, Ratio
from prunectl.evaluation.heads.base import Answers, Asked, Batch, Head, inputs_of, words_right
from prunectl.evaluation.heads.language import of_positions

UNREAD = -1
"""What is predicted of a word that the limit of tokens cut off: it counts in no metric."""


class TagHead(Head):
    """Each word is answered for by its first sub-token (``places``: the word's number there, -100 elsewhere).

    Answers are ``predicted`` and, with tags, ``expected`` and ``loss``, each ``[words read]``. A text without words of
    its own is split at white space.
    """

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
        assert tokenizer is not None, "no model of images tags words"
        if not tokenizer.is_fast:
            raise InvalidInput(
                "tagging words needs a fast tokenizer, which knows the word that each token is from",
                hint="save the checkpoint with a tokenizer.json",
                field="task",
                value=self.task,
            )
        encoded = tokenizer(
            [words_of(example) for example in examples],
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=True,
        )
        taken = set(inspect.signature(model.base_model.forward).parameters)
        names = [name for name in encoded if name in taken]
        places = [_first_of_words(encoded.word_ids(index)) for index in range(len(examples))]
        rows = [
            {**{name: encoded[name][index] for name in names}, "places": places[index]}
            for index in range(len(examples))
        ]
        if not all(example.tags is not None for example in examples):
            return Asked(rows, None, "model")
        labels = [
            [UNLABELLED if word == UNLABELLED else (example.tags or ())[word] for word in row]
            for example, row in zip(examples, places, strict=True)
        ]
        return Asked(rows, labels, "data")

    def learn(self, asked: Asked, field: str) -> Asked:
        kept = [index for index, row in enumerate(asked.rows) if any(place != UNLABELLED for place in row["places"])]
        if not kept:
            raise InvalidData(f"no {field} text has a word", field=field)
        return asked.at(kept)

    def targets(self, values: Sequence[Any]) -> Tensor:
        return pad_labels(values)

    def said(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Logits ``[words, classes]``, row by row."""
        return outputs.token_logits(model, inputs_of(batch), batch["places"] != UNLABELLED)

    def loss(self, said: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(said, batch["labels"][batch["places"] != UNLABELLED])

    def own(self, said: Tensor, batch: Batch) -> list[Any]:
        labels = batch["places"].clone()
        labels[batch["places"] != UNLABELLED] = said.argmax(-1)
        lengths = batch["attention_mask"].sum(1).tolist()
        return [row[:length] for row, length in zip(labels.tolist(), lengths, strict=True)]

    def answers(self, said: Tensor, batch: Batch) -> list[Answers]:
        return of_positions(said, batch["places"] != UNLABELLED, batch.get("labels"))

    def gather(self, asked: Asked, answers: Sequence[Answers], examples: Sequence[Example], model: Any) -> Answers:
        """``predicted`` ``[words]`` of all words, and ``text``, which text each is from; with tags ``expected`` and
        ``loss`` (0 of a word not read), and where they are of entities ``hits``, ``found`` and ``true`` ``[texts]``.
        """
        counts = [len(words_of(example)) for example in examples]
        read = [[place for place in row["places"] if place != UNLABELLED] for row in asked.rows]
        missing = {"predicted": UNREAD, "expected": UNREAD, "loss": 0.0}
        arrays: Answers = {
            name: np.concatenate(
                [
                    _placed(row[name], places, count, missing[name])
                    for row, places, count in zip(answers, read, counts, strict=True)
                ]
            )
            for name in answers[0]
        }
        arrays["text"] = np.repeat(np.arange(len(counts)), counts)
        if not (arrays["predicted"] != UNREAD).any():
            raise InvalidData("no evaluation text has a word", field="data")
        names = label_names(model.config.to_dict())
        if "expected" in arrays and has_entities(names.values()):
            counted = [
                entity_counts([names[i] for i in row["expected"]], [names[i] for i in row["predicted"]])
                for row in answers
            ]
            arrays |= dict(zip(("hits", "found", "true"), np.array(counted, dtype=np.int64).T, strict=True))
        return arrays

    def estimates(self, arrays: Mapping[str, Array], seed: int) -> dict[str, Estimate]:
        """Loss and accuracy of words and, where tags are of entities, the micro-averaged F1 of whole entities."""
        read = arrays["predicted"] != UNREAD
        found = words_right(
            {name: arrays[name][read] for name in ("predicted", "expected", "loss", "text") if name in arrays}
        )
        if "hits" in arrays:
            found["eval_f1"] = Ratio(2.0 * arrays["hits"], arrays["found"] + arrays["true"])
        return found

    def likeness(self, mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, Estimate]:
        both = (mine["predicted"] != UNREAD) & (theirs["predicted"] != UNREAD)
        return super().likeness(
            {name: mine[name][both] for name in ("predicted", "text")}, {"predicted": theirs["predicted"][both]}
        )


def words_of(example: Example) -> list[str]:
    """The words that are tagged."""
    return list(example.words) if example.words is not None else example.text.split()


def _first_of_words(word_ids: Sequence[int | None]) -> list[int]:
    places, last = [], None
    for word in word_ids:
        places.append(UNLABELLED if word is None or word == last else word)
        last = word
    return places


def _placed(values: Array, places: Sequence[int], count: int, missing: float) -> Array:
    placed = np.full(count, missing, dtype=values.dtype)
    placed[list(places)] = values
    return placed
