"""Scores: how much the loss feels each head and each neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.pruning.blocks import Block, find_blocks, linear, shape

Batch = Mapping[str, Any]
Loss = Callable[[Any, Batch], Tensor]
"""(model, batch) -> the loss, a scalar with a gradient."""
Progress = Callable[[float], None]
"""Told the finished part, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Importance of each unit, float32 on the CPU; higher matters more.

    Rows are those of `prunectl.pruning.blocks.find_blocks`, as wide as the widest block; what stands where a row has no
    unit is never read.
    """

    heads: Tensor
    """``[blocks, heads]``"""
    ffn: Tensor
    """``[blocks, neurons]``"""


def stacked(scores: Sequence[Tensor | None]) -> Tensor:
    """``[blocks, units]`` of each block's scores ``[units]``, filled up with zeros; None: it has no such units."""
    width = max(row.numel() for row in scores if row is not None)
    filled = torch.zeros(len(scores), width)
    for place, row in enumerate(scores):
        if row is not None:
            filled[place, : row.numel()] = row.float().cpu()
    return filled


def taylor(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    even: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """First-order Taylor scores: the absolute gradient of the loss in a mask m = 1 that multiplies the input of the
    attention output and of the second feed-forward matrix, summed over the batches, divided by the number of examples.

    That gradient equals the sum of gradient x weight over the unit's slice of the matrix, which is TextPruner's score;
    for heads it is the importance of Michel et al. 2019, "Are Sixteen Heads Really Better than One?", equation 2, with
    the absolute value taken per batch. All weights are frozen, so no weight gradient is computed or held. ``even`` adds
    the first matrix's share, as TextPruner does for even masks: the gradient of a mask on that matrix's output.
    Raises UnsupportedArchitecture for an unknown family.
    """
    blocks = find_blocks(model)
    size = shape(blocks)
    totals = {"heads": torch.zeros(size[0], size[1]), "ffn": torch.zeros(size[0], size[2])}
    examples = 0
    with ExitStack() as stack:
        stack.enter_context(_frozen(model))
        masks = _hooked(model, blocks, even, stack)
        for number, batch in enumerate(batches):
            examples += len(next(iter(batch.values())))
            gradients = torch.autograd.grad(loss(model, batch), [mask for _, _, mask in masks])
            for (name, row, mask), gradient in zip(masks, gradients, strict=True):
                totals[name][row, : mask.numel()] += gradient.abs().float().cpu()
            if progress is not None:
                progress((number + 1) / len(batches))
    if examples == 0:
        raise ValueError("taylor scores need at least one batch")
    return Scores(totals["heads"] / examples, totals["ffn"] / examples)


def random(shape: tuple[int, int, int], seed: int) -> Scores:
    """Uniform scores for ``(blocks, heads, neurons)``; the same for the same seed on every machine."""
    layers, heads, neurons = shape
    generator = torch.Generator().manual_seed(seed)
    return Scores(torch.rand(layers, heads, generator=generator), torch.rand(layers, neurons, generator=generator))


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no weight gradients, both put back as they were."""
    training = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
        for module, mode in training:
            module.training = mode


def _hooked(model: PreTrainedModel, blocks: list[Block], even: bool, stack: ExitStack) -> list[tuple[str, int, Tensor]]:
    """Masks of ones in the model's way: (the total they add to, the block's row, mask)."""
    masks: list[tuple[str, int, Tensor]] = []

    def ones(name: str, row: int, count: int, like: Tensor) -> Tensor:
        mask = torch.ones(count, device=like.device, dtype=like.dtype, requires_grad=True)
        masks.append((name, row, mask))
        return mask

    for row, block in enumerate(blocks):
        output = linear(model, block.output)
        mask = ones("heads", row, block.heads_total, output.weight)
        stack.enter_context(output.register_forward_pre_hook(_multiply_input(mask, block.head_dim)))
        if block.ffn_second is None:
            continue
        second = linear(model, block.ffn_second)
        mask = ones("ffn", row, block.ffn_total, second.weight)
        stack.enter_context(second.register_forward_pre_hook(_multiply_input(mask, 1)))
        if even:
            first = linear(model, block.ffn_first[0])
            mask = ones("ffn", row, block.ffn_total, first.weight)
            stack.enter_context(first.register_forward_hook(_multiply_output(mask)))
    return masks


def _multiply_input(mask: Tensor, repeat: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    return lambda _module, inputs: (inputs[0] * mask.repeat_interleave(repeat),)


def _multiply_output(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda _module, _inputs, output: output * mask
