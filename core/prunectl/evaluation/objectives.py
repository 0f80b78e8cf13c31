"""Objectives: batches and the loss that scores are taken from, for each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidData
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import Encoded, by_length, collate
from prunectl.evaluation.heads import Asked, Labels, head_for
from prunectl.evaluation.heads.base import on_device
from prunectl.evaluation.tasks import Task

SMALLEST_CONTRAST = 8
"""Texts that a contrastive batch has at least: with fewer, there is hardly anything to tell apart."""
_INNER_BATCH = 32


class Objective:
    """A task's loss over fixed examples. ``labels`` says where the labels came from: data, model or text.

    Where what was ``asked`` has no targets there are batches and no `loss`.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase | None, asked: Asked) -> None:
        self.task = task
        self.labels: Labels = asked.source
        self._head = head_for(task)
        self._tokenizer = tokenizer
        self._asked = asked

    def batches(self, batch_size: int) -> list[dict[str, Tensor]]:
        """The model's inputs ``[batch, length]`` padded to the longest, and what `loss` takes besides.

        Always the same for one ``batch_size``, longest texts first. Contrastive batches have at least 8 texts (or all
        there are), whatever ``batch_size`` says, and a smaller rest joins the batch before it.
        """
        return [self.batch(indices) for indices in _grouped(self._asked.rows, self.task, batch_size)]

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Any]) -> Tensor:
        """The mean loss of a batch, a scalar that has a gradient: see `Head.loss` of the task's head."""
        given = on_device(batch, model.device)
        return self._head.loss(self._head.said(model, given), given)

    def __len__(self) -> int:
        return len(self._asked.rows)

    def rows_at(self, indices: Sequence[int]) -> list[Encoded]:
        return [self._asked.rows[index] for index in indices]

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The batch of these examples, see `batches`."""
        batch = collate(self._tokenizer, self.rows_at(indices))
        targets = self._asked.targets
        if targets is not None:
            batch[self._head.target_name] = self._head.targets([targets[index] for index in indices])
        return batch


def objective_for(
    task: Task,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    examples: Sequence[Example],
    max_length: int,
    seed: int,
    model: PreTrainedModel,
) -> Objective:
    """The objective of ``task`` on ``examples``; ``model`` is the unpruned one, in eval mode.

    Right is what the examples say (see `prunectl.evaluation.data.check`), and the model's own answers where they have
    no labels. Raises InvalidData (field ``calibration``) where the examples leave nothing to learn.
    """
    found = asked(task, model, tokenizer, examples, max_length, seed=seed)
    if len(found.rows) < head_for(task).fewest:
        raise InvalidData("contrasting embeddings needs at least 2 calibration texts", field="calibration")
    if found.targets is None:
        found.targets = _own(model, tokenizer, found.rows, task)
    return Objective(task, tokenizer, found)


def asked(
    task: Task,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    examples: Sequence[Example],
    max_length: int,
    *,
    seed: int,
    field: str = "calibration",
) -> Asked:
    """What a model can learn from the examples; ``seed`` draws the masked words.

    Raises InvalidData (``field``) where that is nothing.
    """
    head = head_for(task)
    return head.learn(head.ask(model, tokenizer, examples, max_length=max_length, seed=seed), field)


@torch.no_grad()
def _own(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, rows: Sequence[Encoded], task: Task
) -> list[Any]:
    """What the unpruned model says of each row, as targets."""
    head = head_for(task)
    found: dict[int, Any] = {}
    for indices in by_length(rows, _INNER_BATCH):
        batch = on_device(collate(tokenizer, [rows[index] for index in indices]), model.device)
        found |= dict(zip(indices, head.own(head.said(model, batch), batch), strict=True))
    return [found[index] for index in range(len(rows))]


def _grouped(rows: Sequence[Encoded], task: Task, batch_size: int) -> Iterator[list[int]]:
    if task != "feature-extraction":
        yield from by_length(rows, batch_size)
        return
    groups = list(by_length(rows, max(batch_size, SMALLEST_CONTRAST)))
    if len(groups) > 1 and len(groups[-1]) < SMALLEST_CONTRAST:
        rest = groups.pop()
        groups[-1] += rest
    yield from groups
