"""Surgery: masks become a smaller model that computes exactly what the masked model computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunectl.pruning import residency
from prunectl.pruning.blocks import Block, Matrix, find_blocks, linear, shape
from prunectl.pruning.masks import Masks
from prunectl.pruning.shapes import biased_attention, empty_attention, state_size


@contextmanager
def masked(model: PreTrainedModel, masks: Masks) -> Iterator[None]:
    """Within the block, ``model`` computes as if the units that ``masks`` removes gave zero: forward pre-hooks on the
    attention output and the second feed-forward matrix. Raises ValueError where a mask's shape isn't the model's.
    """
    blocks = find_blocks(model)
    _check(blocks, masks)
    with ExitStack() as stack:
        for row, block in enumerate(blocks):
            if masks.heads is not None:
                mask = masks.heads[row, : block.heads_total].repeat_interleave(block.head_dim)
                stack.enter_context(linear(model, block.output).register_forward_pre_hook(_multiply(mask)))
            if masks.ffn is not None and block.ffn_second is not None:
                mask = masks.ffn[row, : block.ffn_total]
                stack.enter_context(linear(model, block.ffn_second).register_forward_pre_hook(_multiply(mask)))
        yield


def apply(model: PreTrainedModel, masks: Masks) -> None:
    """Remove in place what ``masks`` removes. A layer without heads or neurons passes its residual and the output bias.

    Raises ValueError where a mask's shape isn't the model's, or splits query heads that share a key; then nothing was
    changed.
    """
    blocks = find_blocks(model)
    _check(blocks, masks)
    for row, block in enumerate(blocks):
        if masks.heads is not None:
            cut_heads(model, block, masks.heads[row, : block.heads_total].bool())
        if masks.ffn is not None and block.ffn_second is not None:
            cut_neurons(model, block, masks.ffn[row, : block.ffn_total].bool())
    residency.release(model)


def cut_heads(model: PreTrainedModel, block: Block, heads: Tensor) -> None:
    """Keep the heads where ``heads`` ``[heads]`` is True: rows of query, key, value, columns of the output matrix.

    Raises ValueError where ``heads`` splits query heads that share a key and a value.
    """
    columns = heads.repeat_interleave(block.head_dim).nonzero().squeeze(1)
    shared = _groups(block, heads).repeat_interleave(block.head_dim).nonzero().squeeze(1)
    if block.fused:
        width = block.heads_total * block.head_dim
        _keep_rows(linear(model, block.query), torch.cat([columns + part * width for part in range(3)]))
    else:
        for path, rows in ((block.query, columns), (block.key, shared), (block.value, shared)):
            _keep_rows(linear(model, path), rows)
    for path in block.positions:
        _keep_rows(linear(model, path), columns)
    _keep_columns(linear(model, block.output), columns)
    module = model.get_submodule(block.module)
    kept = int(heads.sum())
    for name, value in replace(block, heads_total=kept).attributes.items():
        setattr(module, name, value)
    if kept == 0:
        empty_attention(module, block.inner_output)
    elif block.shared_bias and kept < block.heads_total:
        biased_attention(module, [int(head) for head in heads.nonzero().squeeze(1)])


def cut_neurons(model: PreTrainedModel, block: Block, neurons: Tensor) -> None:
    """Keep the neurons where ``neurons`` ``[neurons]`` is True: rows of the first matrices, columns of the second."""
    assert block.ffn_second is not None
    kept = neurons.nonzero().squeeze(1)
    for path in block.ffn_first:
        _keep_rows(linear(model, path), kept)
    _keep_columns(linear(model, block.ffn_second), kept)


def _check(blocks: Sequence[Block], masks: Masks) -> None:
    for mask, units in ((masks.heads, shape(list(blocks))[1]), (masks.ffn, shape(list(blocks))[2])):
        if mask is not None and list(mask.shape) != [len(blocks), units]:
            raise ValueError(f"a mask of shape {list(mask.shape)} doesn't fit {len(blocks)} blocks of {units} units")
    if masks.heads is not None:
        for row, block in enumerate(blocks):
            _groups(block, masks.heads[row, : block.heads_total].bool())


def _groups(block: Block, heads: Tensor) -> Tensor:
    """Which keys and values stay, bool ``[key heads]``."""
    grouped = heads.view(-1, block.group)
    if (grouped.any(1) != grouped.all(1)).any():
        raise ValueError(f"{block.module}: query heads go by groups of {block.group} that share a key and a value")
    return grouped.all(1)


def _multiply(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0] * mask.to(device=inputs[0].device, dtype=inputs[0].dtype),)

    return hook


def _keep_rows(module: Matrix, rows: Tensor) -> None:
    """Keep these outputs of the matrix ``[outputs, inputs]``, whichever way it is stored."""
    _keep(module, rows, axis=1 if isinstance(module, Conv1D) else 0)
    if module.bias is not None:
        bias = module.bias.detach().index_select(0, rows.to(module.bias.device))
        module.bias = nn.Parameter(bias, module.bias.requires_grad)
    state_size(module)


def _keep_columns(module: Matrix, columns: Tensor) -> None:
    _keep(module, columns, axis=0 if isinstance(module, Conv1D) else 1)
    state_size(module)


def _keep(module: Matrix, units: Tensor, axis: int) -> None:
    weight = module.weight.detach().index_select(axis, units.to(module.weight.device))
    module.weight = nn.Parameter(weight.contiguous(), module.weight.requires_grad)
