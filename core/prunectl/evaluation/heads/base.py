"""Heads: what is asked of a model by the head on top of it, the loss of its answers, and how good they are.

One module a head, one subclass each; `prunectl.evaluation.heads.head_for` has the table by task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidData
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import NOT_INPUTS, Encoded
from prunectl.evaluation.estimates import Array, Estimate, Mean
from prunectl.evaluation.tasks import Task

Labels = Literal["data", "model", "text"]
Batch = Mapping[str, Tensor]
"""The model's inputs, each ``[batch, …]``, and what stands beside them: ``labels``, ``reference``, ``places``."""
Answers = dict[str, Array]
"""What a model said of one row, by name."""


@dataclass
class Asked:
    """Rows that a model is given, and what it should say of each: None where nothing but the model itself can tell.

    ``source`` says where ``targets`` come from. ``owners`` is the number of the example that each row is from: a long
    one may need several.
    """

    rows: list[Encoded]
    targets: Sequence[Any] | None
    source: Labels
    owners: list[int] = field(default_factory=list)
    beside: list[Any] = field(default_factory=list)
    """For each row, whatever the head needs to read the answer by."""

    def __post_init__(self) -> None:
        self.owners = self.owners or list(range(len(self.rows)))

    def at(self, kept: Sequence[int]) -> Asked:
        """These rows alone."""
        return Asked(
            [self.rows[index] for index in kept],
            None if self.targets is None else [self.targets[index] for index in kept],
            self.source,
            [self.owners[index] for index in kept],
            [self.beside[index] for index in kept] if self.beside else [],
        )


class Head(ABC):
    """One way of asking. Subclasses hold no state but their task."""

    target_name = "labels"
    """What the targets are called in a batch."""
    over_vocabulary = False
    """Whether the output is logits ``[…, vocabulary]``, which a smaller vocabulary has fewer of."""

    fewest = 1
    """Rows that its loss needs."""
    reports_loss = True
    """Whether the loss of the labels is among what is measured."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
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
        """What the model is asked about ``examples``, each cut at ``max_length`` tokens."""

    def learn(self, asked: Asked, field: str) -> Asked:
        """What of it a model can be scored by or trained on. Raises InvalidData (``field``) where there is nothing."""
        if not asked.rows:
            raise InvalidData(f"no {field} example is left to learn from", field=field)
        return asked

    @abstractmethod
    def targets(self, values: Sequence[Any]) -> Tensor:
        """A batch's targets as one tensor ``[batch, …]``."""

    @abstractmethod
    def said(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """What the model says of the batch, with a gradient; the batch is on its device."""

    @abstractmethod
    def loss(self, said: Tensor, batch: Batch) -> Tensor:
        """The mean loss of the batch, a scalar that has a gradient, against its targets."""

    @abstractmethod
    def own(self, said: Tensor, batch: Batch) -> list[Any]:
        """The model's own answers as targets, one a row: what is right where no label says so."""

    @abstractmethod
    def answers(self, said: Tensor, batch: Batch) -> list[Answers]:
        """What the model said of each row, and its loss where the batch has targets."""

    def gather(self, asked: Asked, answers: Sequence[Answers], examples: Sequence[Example], model: Any) -> Answers:
        """The answers to all rows, in their order, as the arrays that a `Reference` keeps."""
        return {name: np.concatenate([row[name] for row in answers]) for name in answers[0]}

    @abstractmethod
    def estimates(self, arrays: Mapping[str, Array], seed: int) -> dict[str, Estimate]:
        """The metrics of the labels; none where the arrays hold none."""

    def likeness(self, mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, Estimate]:
        """The metrics of fidelity to the unpruned model."""
        same = (mine["predicted"] == theirs["predicted"]).astype(np.float64)
        return {"eval_agreement": Mean(same, mine.get("text", np.arange(len(same))))}


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """What of a batch the model's forward takes."""
    return {name: value for name, value in batch.items() if name not in NOT_INPUTS}


def on_device(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def words_right(arrays: Mapping[str, Array]) -> dict[str, Estimate]:
    """Loss and accuracy, where there are labels."""
    if "loss" not in arrays:
        return {}
    text = arrays.get("text", np.arange(len(arrays["loss"])))
    right = (arrays["predicted"] == arrays["expected"]).astype(np.float64)
    return {"eval_loss": Mean(arrays["loss"], text), "eval_accuracy": Mean(right, text)}
