"""Surgery: masks become a smaller model that computes exactly what the masked model computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.pruning.blocks import Block, find_blocks, linear
from prunectl.pruning.masks import Masks
from prunectl.pruning.shapes import empty_attention


@contextmanager
def masked(model: PreTrainedModel, masks: Masks) -> Iterator[None]:
    """Within the block, ``model`` computes as if the units that ``masks`` removes gave zero: forward pre-hooks on the
    attention output and the second feed-forward matrix. Raises ValueError where a mask's shape isn't the model's.
    """
    with ExitStack() as stack:
        for row, block in enumerate(find_blocks(model)):
            if masks.heads is not None:
                mask = _row(masks.heads, row, block.heads_total).repeat_interleave(block.head_dim)
                stack.enter_context(linear(model, block.output).register_forward_pre_hook(_multiply(mask)))
            if masks.ffn is not None:
                mask = _row(masks.ffn, row, block.ffn_total)
                stack.enter_context(linear(model, block.ffn_second).register_forward_pre_hook(_multiply(mask)))
        yield


def apply(model: PreTrainedModel, masks: Masks) -> None:
    """Remove in place what ``masks`` removes. A layer without heads or neurons passes its residual and the output bias.

    Raises ValueError where a mask's shape isn't the model's; then nothing was changed.
    """
    blocks = find_blocks(model)
    for mask, units in ((masks.heads, blocks[0].heads_total), (masks.ffn, blocks[0].ffn_total)):
        if mask is not None and list(mask.shape) != [len(blocks), units]:
            raise ValueError(f"a mask of shape {list(mask.shape)} doesn't fit {len(blocks)} layers of {units} units")
    for row, block in enumerate(blocks):
        if masks.heads is not None:
            cut_heads(model, block, _row(masks.heads, row, block.heads_total))
        if masks.ffn is not None:
            cut_neurons(model, block, _row(masks.ffn, row, block.ffn_total))


def cut_heads(model: PreTrainedModel, block: Block, heads: Tensor) -> None:
    """Keep the heads where ``heads`` ``[heads]`` is True: rows of query, key, value, columns of the output matrix."""
    columns = heads.repeat_interleave(block.head_dim).nonzero().squeeze(1)
    for path in (block.query, block.key, block.value):
        _keep_rows(linear(model, path), columns)
    _keep_columns(linear(model, block.output), columns)
    module = model.get_submodule(block.module)
    setattr(module, block.heads_attribute, int(heads.sum()))
    setattr(module, block.width_attribute, len(columns))
    if not len(columns):
        empty_attention(module, block.inner_output)


def cut_neurons(model: PreTrainedModel, block: Block, neurons: Tensor) -> None:
    """Keep the neurons where ``neurons`` ``[neurons]`` is True: rows of the first matrices, columns of the second."""
    kept = neurons.nonzero().squeeze(1)
    for path in block.ffn_first:
        _keep_rows(linear(model, path), kept)
    _keep_columns(linear(model, block.ffn_second), kept)


def _row(mask: Tensor, row: int, units: int) -> Tensor:
    if mask.dim() != 2 or row >= mask.size(0) or mask.size(1) != units:
        raise ValueError(f"a mask of shape {list(mask.shape)} doesn't fit layer {row} with {units} units")
    return mask[row].bool()


def _multiply(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0] * mask.to(device=inputs[0].device, dtype=inputs[0].dtype),)

    return hook


def _keep_rows(module: nn.Linear, rows: Tensor) -> None:
    _replace(module, module.weight.detach().index_select(0, rows.to(module.weight.device)))
    if module.bias is not None:
        bias = module.bias.detach().index_select(0, rows.to(module.bias.device))
        module.bias = nn.Parameter(bias, module.bias.requires_grad)
    module.out_features = len(rows)


def _keep_columns(module: nn.Linear, columns: Tensor) -> None:
    _replace(module, module.weight.detach().index_select(1, columns.to(module.weight.device)))
    module.in_features = len(columns)


def _replace(module: nn.Linear, weight: Tensor) -> None:
    module.weight = nn.Parameter(weight.contiguous(), module.weight.requires_grad)
