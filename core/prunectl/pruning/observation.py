"""Observation: running a model over calibration data and looking at what passes through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.pruning.packing import Batch
from prunectl.pruning.scores import Loss, Progress


class Watch(Protocol):
    """Told what enters a module: ``[tokens, width]``, padding dropped."""

    def __call__(self, name: str, inputs: Tensor) -> None: ...


@torch.no_grad()
def observe(
    model: PreTrainedModel,
    modules: Sequence[str],
    batches: Sequence[Batch],
    loss: Loss,
    watch: Watch,
    *,
    progress: Progress | None = None,
) -> None:
    """Run ``loss`` over the batches and hand ``watch`` the input of each of ``modules`` (paths).

    Raises ValueError without batches. The model's mode is put back as it was.
    """
    current: Batch = {}
    if not batches:
        raise ValueError("observing a model needs at least one batch")

    def hook(name: str) -> Any:
        def call(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            watch(name, inputs[0][real_tokens(inputs[0], current)])

        return call

    with evaluating(model), ExitStack() as stack:
        for name in modules:
            stack.enter_context(model.get_submodule(name).register_forward_pre_hook(hook(name)))
        for number, batch in enumerate(batches):
            current = batch
            loss(model, batch)
            if progress is not None:
                progress((number + 1) / len(batches))


def real_tokens(hidden: Tensor, batch: Batch) -> Tensor:
    """Where ``hidden`` ``[..., width]`` holds a token rather than padding, bool ``[...]``.

    Judged by the attention mask of the batch that has the same shape; where none has, as for images, everything counts.
    """
    shape = hidden.shape[:-1]
    for name in ("attention_mask", "decoder_attention_mask"):
        mask = batch.get(name)
        if isinstance(mask, Tensor):
            if mask.shape == shape:
                return mask.to(hidden.device).bool()
            if shape == (mask.numel(),):
                return mask.reshape(-1).to(hidden.device).bool()
    return torch.ones(shape, dtype=torch.bool, device=hidden.device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module's mode is put back as it was."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training:
            module.training = mode
