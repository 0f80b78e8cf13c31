"""Heads that name tokens: masked words, the next token, the text of a pair under teacher forcing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidData
from prunectl.evaluation import outputs
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import UNLABELLED, ask, pad_labels, paired
from prunectl.evaluation.estimates import Array, Estimate, Exponential, Mean
from prunectl.evaluation.heads.base import Answers, Asked, Batch, Head, inputs_of, words_right
from prunectl.evaluation.losses import token_loss

_VERBS = {
    "fill-mask": "could be masked",
    "text-generation": "follows another",
    "text2text-generation": "could be written",
}


class LanguageHead(Head):
    """Answers are ``predicted``, ``expected`` and ``loss`` ``[tokens]`` of the tokens asked for."""

    over_vocabulary = True

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
        assert tokenizer is not None, "no model of images names tokens"
        rows, labels = ask(
            self.task, model, tokenizer, examples, max_length=max_length, seed=seed, replacements=replacements
        )
        return Asked(rows, labels, "data" if self.task == "text2text-generation" and paired(examples) else "text")

    def learn(self, asked: Asked, field: str) -> Asked:
        kept = [i for i, label in enumerate(asked.targets or ()) if any(value != UNLABELLED for value in label)]
        if not kept:
            raise InvalidData(f"no {field} text has a word that {_VERBS[self.task]}", field=field)
        return asked.at(kept)

    def targets(self, values: Sequence[Any]) -> Tensor:
        return pad_labels(values)

    def said(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Logits ``[tokens, vocabulary]`` of the tokens asked for, row by row."""
        return outputs.token_logits(model, inputs_of(batch), batch["labels"] != UNLABELLED)

    def loss(self, said: Tensor, batch: Batch) -> Tensor:
        labels = batch["labels"]
        return token_loss(said, labels[labels != UNLABELLED])

    def own(self, said: Tensor, batch: Batch) -> list[Any]:
        raise NotImplementedError("a text itself says what its words are")

    def answers(self, said: Tensor, batch: Batch) -> list[Answers]:
        return of_positions(said, batch["labels"] != UNLABELLED, batch["labels"])

    def gather(self, asked: Asked, answers: Sequence[Answers], examples: Sequence[Example], model: Any) -> Answers:
        arrays = super().gather(asked, answers, examples, model)
        if not arrays["predicted"].size:
            raise InvalidData("no evaluation text has a word to predict", field="data")
        return arrays | {"text": text_of(answers)}

    def estimates(self, arrays: Mapping[str, Array], seed: int) -> dict[str, Estimate]:
        found = words_right(arrays)
        if self.task == "text-generation":
            loss = found["eval_loss"]
            assert isinstance(loss, Mean)
            found["eval_perplexity"] = Exponential(loss)
        return found


def of_positions(said: Tensor, positions: Tensor, labels: Tensor | None) -> list[Answers]:
    """Logits ``[tokens, classes]`` at ``positions`` (bool ``[batch, length]``) as the answers of each row."""
    logits = said.float().cpu()
    found = {"predicted": logits.argmax(-1).numpy()}
    if labels is not None:
        expected = labels[positions].cpu()
        found |= {"expected": expected.numpy(), "loss": cross_entropy(logits, expected, reduction="none").numpy()}
    ends = np.cumsum(positions.sum(1).cpu().numpy())[:-1]
    parts = {name: np.split(array, ends) for name, array in found.items()}
    return [{name: part[row] for name, part in parts.items()} for row in range(len(positions))]


def text_of(answers: Sequence[Answers]) -> Array:
    """``[tokens]``: the number of the text that each token is from."""
    return np.concatenate([np.full(len(row["predicted"]), index) for index, row in enumerate(answers)])
