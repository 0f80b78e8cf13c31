"""Heads that name a class of a whole text or image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.evaluation import outputs
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import encode
from prunectl.evaluation.estimates import Array, Estimate, MacroF1
from prunectl.evaluation.heads.base import Answers, Asked, Batch, Head, inputs_of, words_right


class ClassHead(Head):
    """Answers are ``predicted`` ``[1]`` and, with labels, ``expected`` and ``loss`` ``[1]``."""

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
        rows = encode(model, tokenizer, examples, max_length)
        labels = [example.label for example in examples]
        if all(isinstance(label, int) for label in labels):
            return Asked(rows, labels, "data")
        return Asked(rows, None, "model")

    def targets(self, values: Sequence[Any]) -> Tensor:
        return torch.tensor(list(values))

    def said(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Logits ``[batch, classes]``."""
        return outputs.class_logits(model, inputs_of(batch))

    def loss(self, said: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(said, batch["labels"])

    def own(self, said: Tensor, batch: Batch) -> list[Any]:
        return list(said.argmax(-1).tolist())

    def answers(self, said: Tensor, batch: Batch) -> list[Answers]:
        logits = said.float().cpu()
        found = {"predicted": logits.argmax(-1).numpy()}
        if "labels" in batch:
            expected = batch["labels"].cpu()
            found |= {"expected": expected.numpy(), "loss": cross_entropy(logits, expected, reduction="none").numpy()}
        return [{name: array[row : row + 1] for name, array in found.items()} for row in range(len(logits))]

    def estimates(self, arrays: Mapping[str, Array], seed: int) -> dict[str, Estimate]:
        found = words_right(arrays)
        if found:
            found["eval_f1"] = MacroF1(arrays["expected"], arrays["predicted"], seed)
        return found
