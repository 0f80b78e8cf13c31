"""Token weights: how much a model's loss listens to what each token is given by an output matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.errors import CorruptWeights
from prunectl.pruning.blocks import linear
from prunectl.pruning.observation import real_tokens
from prunectl.pruning.packing import Batch, examples_of, halved, out_of_memory
from prunectl.pruning.scores import Loss

TokenWeights = dict[str, list[list[Tensor]]]
"""``[rows]`` by output matrix, batch and call."""
ShareWeights = Callable[[Callable[[], TokenWeights]], TokenWeights]
"""Given what computes token weights, gives them: from where they lie already, or by calling it."""

FLOOR = 0.1
"""Weight of a token that the loss doesn't listen to, beside a mean of 1."""


def token_weights(model: PreTrainedModel, batches: Sequence[Batch], loss: Loss, outputs: Sequence[str]) -> TokenWeights:
    """How much the loss listens to what each output matrix gives for a token: ``[rows]`` by matrix, batch and call.

    The squared gradient's share in its example, times the example's tokens, with `FLOOR` for each: an example weighs as
    much as its tokens are many. Raises CorruptWeights where the loss is not finite.
    """
    found: TokenWeights = {name: [] for name in outputs}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        for batch in batches:
            for name, calls in _of_batch(model, batch, loss, outputs).items():
                found[name].append(calls)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    return found


def _of_batch(model: PreTrainedModel, batch: Batch, loss: Loss, outputs: Sequence[str]) -> dict[str, list[Tensor]]:
    """By matrix, ``[rows]`` of each call. A batch that the memory can't hold is taken in halves."""
    examples = examples_of(batch)
    try:
        return _of_whole(model, batch, loss, outputs, examples)
    except RuntimeError as error:
        if examples == 1 or not out_of_memory(error):
            raise
    first, second = (_of_batch(model, half, loss, outputs) for half in halved(batch))
    return {name: [torch.cat(calls) for calls in zip(first[name], second[name], strict=True)] for name in outputs}


def _of_whole(
    model: PreTrainedModel, batch: Batch, loss: Loss, outputs: Sequence[str], examples: int
) -> dict[str, list[Tensor]]:
    given: list[tuple[str, Tensor]] = []
    with ExitStack() as stack, torch.enable_grad():
        for name in outputs:
            stack.enter_context(linear(model, name).register_forward_hook(_record(name, given)))
        value = loss(model, batch)
        if not torch.isfinite(value):
            raise CorruptWeights(
                "the loss of the calibration data is not a finite number", hint="check the model's weights for NaN"
            )
        gradients = torch.autograd.grad(value, [tensor for _, tensor in given], allow_unused=True)
    found: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for (name, tensor), gradient in zip(given, gradients, strict=True):
        real = real_tokens(tensor, batch)
        felt = torch.zeros(real.shape, device=real.device) if gradient is None else gradient.float().square().sum(-1)
        felt = (felt * real).view(examples, -1)
        tokens = real.view(felt.shape).sum(1, keepdim=True)
        share = felt / felt.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) * tokens
        found[name].append(((share + FLOOR) / (1 + FLOOR)).view(real.shape)[real])
    return found


def _record(name: str, into: list[tuple[str, Tensor]]) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output.requires_grad_()
        into.append((name, output))
        return output

    return hook
