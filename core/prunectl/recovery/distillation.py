"""Distillation: a pruned model learns to say what the unpruned one says, at its output and inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel

from prunectl.evaluation.heads import head_for
from prunectl.evaluation.heads.base import inputs_of, on_device
from prunectl.evaluation.tasks import Task
from prunectl.pruning.layers import layer_modules
from prunectl.pruning.observation import real_tokens
from prunectl.pruning.vocabulary import Vocabulary

TEMPERATURE = 2.0
_IDS = ("input_ids", "decoder_input_ids")


class Distillation:
    """The loss of a student against its ``teacher``, the unpruned model, in eval mode on the same device.

    ``removed`` numbers the teacher's layers that the student lacks, ``vocabulary`` what it kept of its entries.
    """

    def __init__(
        self,
        task: Task,
        teacher: PreTrainedModel,
        *,
        removed: Sequence[int] = (),
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self._task = task
        self._head = head_for(task)
        self._teacher = teacher.eval().requires_grad_(False)
        self._layers = [module for number, module in enumerate(layer_modules(teacher)) if number not in set(removed)]
        self._kept = None if vocabulary is None else torch.tensor(vocabulary.kept, device=teacher.device)
        self._rows = None if vocabulary is None else torch.tensor(vocabulary.rows, device=teacher.device)

    def loss(self, student: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
        """A scalar with a gradient: likeness of the outputs plus likeness of the hidden states.

        Outputs that are logits: T^2 KL(teacher / T || student / T) with T = 2 (Hinton et al. 2015, section 2), at the
        tokens asked for; embeddings: 1 - cosine. Hidden states: squared error relative to the teacher's mean square,
        averaged over the layers that both have (TinyBERT, Jiao et al. 2020, equation 8, without a projection, as
        pruning leaves the width). Labels are not looked at; only where a language model is asked for one.
        """
        given = on_device(batch, student.device)
        theirs: list[Tensor] = []
        mine: list[Tensor] = []
        with torch.no_grad(), _watched(self._layers, theirs):
            wanted = self._head.said(self._teacher, self._in_originals(given))
        if self._rows is not None and self._head.over_vocabulary:
            wanted = wanted[:, self._rows]
        with _watched(layer_modules(student), mine):
            said = self._head.said(student, given)
        return self._outputs(said, wanted) + _hidden(mine, theirs, inputs_of(given))

    def _outputs(self, said: Tensor, wanted: Tensor) -> Tensor:
        if self._task == "feature-extraction":
            return (1 - (said * wanted).sum(-1)).mean()
        student, teacher = (log_softmax(logits.float() / TEMPERATURE, -1) for logits in (said, wanted))
        return TEMPERATURE**2 * kl_div(student, teacher, log_target=True, reduction="batchmean")

    def _in_originals(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs in the numbers of the teacher's vocabulary."""
        if self._kept is None:
            return dict(inputs)
        return {name: self._kept[value] if name in _IDS else value for name, value in inputs.items()}


def _hidden(mine: Sequence[Tensor], theirs: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
    if not mine or len(mine) != len(theirs):  # layers that share their weights are not told apart by their modules
        return torch.zeros((), device=next(iter(inputs.values())).device)
    errors = []
    for student, teacher in zip(mine, theirs, strict=True):
        rows = real_tokens(teacher, inputs)
        square = teacher[rows].float().pow(2).mean().clamp_min(torch.finfo(torch.float32).tiny)
        errors.append((student[rows] - teacher[rows]).float().pow(2).mean() / square)
    return torch.stack(errors).mean()


@contextmanager
def _watched(modules: Sequence[nn.Module], seen: list[Tensor]) -> Iterator[None]:
    """Within the block, ``seen`` gets what each of the modules hands on, in the order in which they run."""

    def see(_module: nn.Module, _arguments: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [module.register_forward_hook(see) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
