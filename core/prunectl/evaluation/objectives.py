"""Objectives: batches and the loss that scores are taken from, for each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidData
from prunectl.evaluation import outputs
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import UNLABELLED, Encoded, ask, by_length, collate, encode, pad_labels, paired
from prunectl.evaluation.losses import token_loss
from prunectl.evaluation.tasks import CLASS_TASKS, TOKEN_TASKS, Task

Labels = Literal["data", "model", "text"]

TEMPERATURE = 0.05
SMALLEST_CONTRAST = 8
"""Texts that a contrastive batch has at least: with fewer, there is hardly anything to tell apart."""
_EXTRA = ("labels", "reference")
_INNER_BATCH = 32
_VERBS = {
    "fill-mask": "could be masked",
    "text-generation": "follows another",
    "text2text-generation": "could be written",
}


class Objective:
    """A task's loss over fixed examples. ``labels`` says where the labels came from: data, model or text.

    Without ``targets`` there are batches and no `loss`.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: PreTrainedTokenizerBase | None,
        rows: Sequence[Encoded],
        targets: Sequence[list[int]] | Tensor | None,
        labels: Labels,
    ) -> None:
        self.task = task
        self.labels = labels
        self._tokenizer = tokenizer
        self._rows = rows
        self._targets = targets

    def batches(self, batch_size: int) -> list[dict[str, Tensor]]:
        """The model's inputs ``[batch, length]`` padded to the longest, and what `loss` takes besides.

        Always the same for one ``batch_size``, longest texts first. Contrastive batches have at least 8 texts (or all
        there are), whatever ``batch_size`` says, and a smaller rest joins the batch before it.
        """
        return [self.batch(indices) for indices in _grouped(self._rows, self.task, batch_size)]

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Any]) -> Tensor:
        """The mean loss of a batch, a scalar that has a gradient.

        Of tokens and of classes: cross-entropy. feature-extraction: in-batch contrast with the unpruned
        model, logits_ij = cos(e_i, r_j) / 0.05 and label i, where e are the model's embeddings and r the unpruned
        model's; the form is equation 1 of SimCSE (Gao et al. 2021) with the unpruned model as the second view.
        """
        device = model.device
        inputs = {name: value.to(device) for name, value in batch.items() if name not in _EXTRA}
        if self.task == "feature-extraction":
            reference = batch["reference"].to(device)
            logits = outputs.embeddings(model, inputs) @ reference.T / TEMPERATURE
            return cross_entropy(logits, torch.arange(len(reference), device=device))
        labels = batch["labels"].to(device)
        if self.task in CLASS_TASKS:
            return cross_entropy(outputs.class_logits(model, inputs), labels)
        positions = labels != UNLABELLED
        return token_loss(outputs.token_logits(model, inputs, positions), labels[positions])

    def __len__(self) -> int:
        return len(self._rows)

    def rows_at(self, indices: Sequence[int]) -> list[Encoded]:
        return [self._rows[index] for index in indices]

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The batch of these examples, see `batches`."""
        batch = collate(self._tokenizer, self.rows_at(indices))
        if isinstance(self._targets, Tensor):
            batch["reference" if self.task == "feature-extraction" else "labels"] = self._targets[list(indices)]
        elif self._targets is not None:
            batch["labels"] = pad_labels([self._targets[index] for index in indices])
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

    Classification takes the examples' labels (integers, see `prunectl.evaluation.data.check`) and the model's own
    argmax where they have none. Raises InvalidData (field ``calibration``) where the examples leave nothing to learn.
    """
    if task in TOKEN_TASKS:
        assert tokenizer is not None
        return asked(task, model, tokenizer, examples, max_length, seed=seed)
    rows = encode(model, tokenizer, examples, max_length)
    if task == "feature-extraction":
        if len(rows) < 2:
            raise InvalidData("contrasting embeddings needs at least 2 calibration texts", field="calibration")
        return Objective(task, tokenizer, rows, _every(model, tokenizer, rows, task), "model")
    if all(isinstance(example.label, int) for example in examples):
        return Objective(task, tokenizer, rows, torch.tensor([example.label for example in examples]), "data")
    return Objective(task, tokenizer, rows, _every(model, tokenizer, rows, task), "model")


def asked(
    task: Task,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_length: int,
    *,
    seed: int,
    field: str = "calibration",
) -> Objective:
    """The objective of a language model, whose text says what is right; ``seed`` draws the masked words.

    Raises InvalidData (``field``) where no example has a word to predict.
    """
    shown, labels = ask(task, model, tokenizer, examples, max_length=max_length, seed=seed)
    kept = [index for index, label in enumerate(labels) if any(value != UNLABELLED for value in label)]
    if not kept:
        raise InvalidData(f"no {field} text has a word that {_VERBS[task]}", field=field)
    source: Labels = "data" if task == "text2text-generation" and paired(examples) else "text"
    return Objective(task, tokenizer, [shown[i] for i in kept], [labels[i] for i in kept], source)


@torch.no_grad()
def _every(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, rows: Sequence[Encoded], task: Task
) -> Tensor:
    """What the unpruned model says of each row: classes ``[examples]`` or embeddings ``[examples, hidden]``."""
    found: dict[int, Tensor] = {}
    for indices in by_length(rows, _INNER_BATCH):
        batch = collate(tokenizer, [rows[index] for index in indices])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        if task == "feature-extraction":
            said = outputs.embeddings(model, inputs).cpu()
        else:
            said = outputs.class_logits(model, inputs).argmax(-1).cpu()
        found |= dict(zip(indices, said, strict=True))

    return torch.stack([found[index] for index in range(len(rows))])


def _grouped(rows: Sequence[Encoded], task: Task, batch_size: int) -> Iterator[list[int]]:
    if task != "feature-extraction":
        yield from by_length(rows, batch_size)
        return
    groups = list(by_length(rows, max(batch_size, SMALLEST_CONTRAST)))
    if len(groups) > 1 and len(groups[-1]) < SMALLEST_CONTRAST:
        rest = groups.pop()
        groups[-1] += rest
    yield from groups
