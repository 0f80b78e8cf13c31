"""Scores: how much the loss feels each head and each neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.pruning.blocks import Block, find_blocks, linear, shape
from prunectl.pruning.packing import Batch, budget_of, divided, examples_of, halved, out_of_memory, weight_of

Loss = Callable[[Any, Batch], Tensor]
"""(model, batch) -> the loss, a scalar with a gradient."""
Progress = Callable[[float], None]
"""Told the finished part, 0 to 1."""
GradientScorer = Literal["taylor", "fisher"]
_ROWS = 256
"""Tokens whose products are held at once."""
_GRADIENT: tuple[GradientScorer, ...] = ("taylor", "fisher")


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


GradientScores = dict[GradientScorer, Scores]
"""What one pass of `gradient_scores` gives."""


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
    return gradient_scores(model, batches, loss, even=even, progress=progress)["taylor"]


def fisher(model: PreTrainedModel, batches: Sequence[Batch], loss: Loss, *, progress: Progress | None = None) -> Scores:
    """The diagonal of the empirical Fisher information of the masks: the squared gradient of the loss in the masks that
    `taylor` describes, meaned over the batches (Kwon et al. 2022, "A Fast Post-Training Pruning Framework for
    Transformers", equation 9). Half of it estimates by how much the loss rises when the unit goes.

    Raises UnsupportedArchitecture for an unknown family.
    """
    return gradient_scores(model, batches, loss, progress=progress)["fisher"]


def gradient_scores(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    even: bool = False,
    progress: Progress | None = None,
) -> GradientScores:
    """`taylor` and `fisher` from one pass; ``even`` changes the former alone.

    A batch is done in the passes that `prunectl.pruning.packing` finds the cheapest, and one that the memory can't hold
    is halved, again where needed. Their gradients put together are the whole batch's, where its loss is a mean over
    examples or labelled tokens.
    Raises ValueError without batches, UnsupportedArchitecture for an unknown family.
    """
    blocks = find_blocks(model)
    size = shape(blocks)
    budget = budget_of(model)
    totals = {scorer: Scores(torch.zeros(size[0], size[1]), torch.zeros(size[0], size[2])) for scorer in _GRADIENT}
    examples = 0
    with ExitStack() as stack:
        stack.enter_context(_frozen(model))
        masks = _hooked(model, blocks, even, stack)
        for number, batch in enumerate(batches):
            examples += examples_of(batch)
            gradients = _meaned(model, divided(batch, budget), loss, [mask.values for mask in masks])
            for mask, gradient in zip(masks, gradients, strict=True):
                felt = gradient.float().cpu()
                mask.row_of(totals["taylor"]).add_(felt.abs())
                if not mask.first:
                    mask.row_of(totals["fisher"]).add_(felt.square())
            if progress is not None:
                progress((number + 1) / len(batches))
    if examples == 0:
        raise ValueError("gradient scores need at least one batch")
    taylor, fisher = totals["taylor"], totals["fisher"]
    return {
        "taylor": Scores(taylor.heads / examples, taylor.ffn / examples),
        "fisher": Scores(fisher.heads / len(batches), fisher.ffn / len(batches)),
    }


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


def _meaned(model: PreTrainedModel, passes: Sequence[Batch], loss: Loss, masks: list[Tensor]) -> Sequence[Tensor]:
    """Of the mean loss over the passes in the masks, ``[units]`` each: their gradients, weighted as that mean does."""
    weights = [weight_of(part) for part in passes]
    examples = sum(weights)
    if len(passes) == 1 or not examples:
        return _in_one_pass(model, passes[0], loss, masks)
    total = [torch.zeros_like(mask) for mask in masks]
    for part, weight in zip(passes, weights, strict=True):
        if weight:
            for whole, gradient in zip(total, _in_one_pass(model, part, loss, masks), strict=True):
                whole.add_(gradient, alpha=weight / examples)
    return total


def _in_one_pass(model: PreTrainedModel, batch: Batch, loss: Loss, masks: list[Tensor]) -> Sequence[Tensor]:
    """In one, or where the memory can't hold it, in as many halves as it takes."""
    try:
        return torch.autograd.grad(loss(model, batch), masks)
    except RuntimeError as error:
        if examples_of(batch) == 1 or not out_of_memory(error):
            raise
    # Outside of the handler, whose traceback keeps the failed pass's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return _meaned(model, halved(batch), loss, masks)


@dataclass(frozen=True, slots=True)
class _Mask:
    values: Tensor
    """``[units]``, ones."""
    unit: Literal["heads", "ffn"]
    row: int
    first: bool = False
    """It multiplies what the first feed-forward matrix puts out."""

    def row_of(self, scores: Scores) -> Tensor:
        """The block's units in ``scores``, a view."""
        return (scores.heads if self.unit == "heads" else scores.ffn)[self.row, : self.values.numel()]


def _hooked(model: PreTrainedModel, blocks: list[Block], even: bool, stack: ExitStack) -> list[_Mask]:
    """Masks of ones in the model's way."""

    def ones(count: int, like: Tensor) -> Tensor:
        return torch.ones(count, device=like.device, dtype=like.dtype, requires_grad=True)

    masks: list[_Mask] = []
    for row, block in enumerate(blocks):
        output = linear(model, block.output)
        heads = ones(block.heads_total, output.weight)
        masks.append(_Mask(heads, "heads", row))
        stack.enter_context(output.register_forward_pre_hook(_multiply_input(heads, block.head_dim)))
        if block.ffn_second is None:
            continue
        second = linear(model, block.ffn_second)
        neurons = ones(block.ffn_total, second.weight)
        masks.append(_Mask(neurons, "ffn", row))
        stack.enter_context(second.register_forward_pre_hook(_multiply_input(neurons, 1)))
        if even:
            first = linear(model, block.ffn_first[0])
            neurons = ones(block.ffn_total, first.weight)
            masks.append(_Mask(neurons, "ffn", row, first=True))
            stack.enter_context(first.register_forward_hook(_multiply_output(neurons)))
    return masks


def _multiply_input(mask: Tensor, repeat: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    return lambda _module, inputs: (_Masked.apply(inputs[0], mask, repeat),)


def _multiply_output(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda _module, _inputs, output: _Masked.apply(output, mask, 1)


class _Masked(torch.autograd.Function):
    """x ``[..., units * repeat]`` times a mask of ones ``[units]``: x itself, and in the mask the sum of x * dL/dx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, repeat: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.repeat = repeat
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        [x], [gradient] = ctx.saved_tensors, gradients
        pairs = zip(x.flatten(0, -2).split(_ROWS), gradient.flatten(0, -2).split(_ROWS), strict=True)
        felt: Tensor = sum((rows * slopes).sum(0) for rows, slopes in pairs)
        return gradient, felt.view(-1, ctx.repeat).sum(1), None
