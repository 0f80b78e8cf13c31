"""Scores without a gradient: what units put out on calibration data, and how large their weights are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.pruning.blocks import Block, find_blocks
from prunectl.pruning.observation import observe
from prunectl.pruning.packing import Batch
from prunectl.pruning.scores import Loss, Progress, Scores, stacked
from prunectl.pruning.weights import oriented


def activation(
    model: PreTrainedModel, batches: Sequence[Batch], loss: Loss, *, progress: Progress | None = None
) -> Scores:
    """Mean size of what each unit puts out, over all tokens but padding: |a| of a neuron (the input of the second
    feed-forward matrix), ||o||_2 of a head's output before the output matrix.

    The forms of Minitron (Muralidharan et al. 2024, "Compact Language Models via Pruning and Knowledge Distillation",
    section 2.2), with absolute neurons. Raises UnsupportedArchitecture for an unknown family.
    """
    blocks = find_blocks(model)
    sizes = {block.output: block.head_dim for block in blocks}
    sizes |= {block.ffn_second: 1 for block in blocks if block.ffn_second is not None}
    totals: dict[str, Tensor] = {}
    tokens: dict[str, int] = dict.fromkeys(sizes, 0)

    def watch(name: str, inputs: Tensor) -> None:
        found = inputs.float().unflatten(-1, (-1, sizes[name])).norm(dim=-1).sum(0).cpu()
        totals[name] = totals[name] + found if name in totals else found
        tokens[name] += len(inputs)

    observe(model, list(sizes), batches, loss, watch, progress=progress)
    means = {name: total / max(tokens[name], 1) for name, total in totals.items()}
    return _scores(blocks, lambda block: means[block.output], lambda block: means[cast(str, block.ffn_second)])


@torch.no_grad()
def magnitude(model: PreTrainedModel) -> Scores:
    """L2 norm of each unit's weights: a head's rows of the query, key and value matrices with its columns of the output
    matrix; a neuron's rows of the first matrices with its column of the second.

    The weight-magnitude importance of Li et al. 2017, "Pruning Filters for Efficient ConvNets", with the 2-norm.
    """
    return _scores(find_blocks(model), lambda block: _heads(model, block), lambda block: _neurons(model, block))


def _scores(blocks: list[Block], heads: Callable[[Block], Tensor], ffn: Callable[[Block], Tensor]) -> Scores:
    return Scores(
        stacked([heads(block) for block in blocks]),
        stacked([None if block.ffn_second is None else ffn(block) for block in blocks]),
    )


def _heads(model: PreTrainedModel, block: Block) -> Tensor:
    """``[heads]``. Of a key and a value that several query heads share, each gets its part."""
    heads, width = block.heads_total, block.heads_total * block.head_dim
    squares = _oriented(model, block.output).T.square().reshape(heads, -1).sum(1)
    if block.fused:
        both = _oriented(model, block.query).reshape(3, heads, -1)
        return (squares + both.square().sum((0, 2))).sqrt()
    for path in (block.query, block.key, block.value):
        group = 1 if path == block.query else block.group
        rows = _oriented(model, path)[: width // group].reshape(heads // group, -1).square().sum(1)
        squares = squares + rows.repeat_interleave(group) / group
    return squares.sqrt()


def _neurons(model: PreTrainedModel, block: Block) -> Tensor:
    """``[neurons]``"""
    assert block.ffn_second is not None
    squares = _oriented(model, block.ffn_second).T.square().sum(1)
    for path in block.ffn_first:
        squares = squares + _oriented(model, path).square().sum(1)
    return squares.sqrt()


def _oriented(model: nn.Module, path: str) -> Tensor:
    """The weight as ``[outputs, inputs]``, whichever way the module keeps it."""
    return oriented(model.get_submodule(path)).detach().float()
