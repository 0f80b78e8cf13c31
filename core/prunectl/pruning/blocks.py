"""The blocks of a model: each attention, with the feed-forward pair of its layer, by module path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunectl.errors import UnsupportedArchitecture
from prunectl.pruning.architectures import Attention, Kind, Layers, Stack, family_of, shape_of

Matrix = nn.Linear | Conv1D
"""Conv1D is GPT-2's linear layer, whose weight is stored ``[inputs, outputs]``."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block, with the paths of its modules in the model it was found in.

    The feed-forward of a layer stands in the block of its first attention; a decoder's cross-attention has none
    (``ffn_first`` empty, ``ffn_second`` None, ``ffn_total`` 0).
    """

    stack: Stack
    index: int
    attention: Kind
    module: str
    """The attention module that holds the count of heads."""
    query: str
    key: str
    value: str
    """Equal to ``query`` and ``key`` where one matrix holds all three, beside each other in this order."""
    output: str
    inner_output: str | None
    """The output matrix's name within ``module``, if it lives there."""
    positions: tuple[str, ...]
    """Further projections that have a slice a head: of relative positions."""
    shared_bias: bool
    ffn_first: tuple[str, ...]
    ffn_second: str | None
    heads_attribute: str | None
    width_attribute: str | None
    heads_total: int
    head_dim: int
    group: int
    """Query heads that share a key and a value; 1: each has its own."""
    ffn_total: int

    @property
    def fused(self) -> bool:
        return self.query == self.key

    @property
    def attributes(self) -> dict[str, int]:
        """What the attention module says of itself: its heads, and its width where it counts that too."""
        said = {self.heads_attribute: self.heads_total, self.width_attribute: self.heads_total * self.head_dim}
        return {name: value for name, value in said.items() if name is not None}


def base_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model below a task head; the model itself where there is none."""
    base = getattr(model, model.base_model_prefix, model)
    return base if isinstance(base, PreTrainedModel) else model


def base_path(model: PreTrainedModel) -> str:
    """What stands before a path of the base model in this model: ``"bert."``, or nothing for a bare encoder."""
    return "" if base_of(model) is model else f"{model.base_model_prefix}."


def linear(model: nn.Module, path: str) -> Matrix:
    """The linear layer at ``path``; raises UnsupportedArchitecture where there is none."""
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise UnsupportedArchitecture(f"{type(model).__name__} has no module {path}") from error
    if not isinstance(module, (nn.Linear, Conv1D)):
        raise UnsupportedArchitecture(f"{path} is a {type(module).__name__}, not a linear layer")
    return module


def inputs_of(matrix: Matrix) -> int:
    """Columns of the matrix ``[outputs, inputs]``, whichever way it is stored."""
    return matrix.weight.size(0 if isinstance(matrix, Conv1D) else 1)


def outputs_of(matrix: Matrix) -> int:
    """Rows of the matrix ``[outputs, inputs]``, whichever way it is stored."""
    return matrix.weight.size(1 if isinstance(matrix, Conv1D) else 0)


def described(model: PreTrainedModel) -> dict[str, Any]:
    """The model's configuration as config.json would have it, its class included."""
    return {**model.config.to_dict(), "architectures": [type(model).__name__]}


def find_blocks(model: PreTrainedModel) -> list[Block]:
    """Every block in order: a layer's self-attention, then its cross-attention; an encoder's layers, then a decoder's.

    Layers that share their weights are one block. Raises UnsupportedArchitecture for a family that isn't in the table.
    """
    config = model.config.to_dict()
    prefix = base_path(model)
    return [
        _block(model, layers, attention, index, at + ".", first=place == 0)
        for layers in family_of(config).stacks_for(config, type(model).__name__)
        for index, at in enumerate(_layer_paths(model, layers, prefix))
        for place, attention in enumerate(layers.attentions)
    ]


def require_whole(model: PreTrainedModel, blocks: list[Block]) -> None:
    """Raises UnsupportedArchitecture where blocks aren't of the sizes that the configuration states."""
    config = described(model)
    stated = [(block.heads_total, block.ffn_total) for block in shape_of(config).blocks]
    if stated != [(block.heads_total, block.ffn_total) for block in blocks]:
        raise UnsupportedArchitecture(
            "the layers of this model differ in heads or neurons from its configuration: it has been pruned already",
            hint="prune the original model with a recipe that removes more",
        )


def shape(blocks: list[Block]) -> tuple[int, int, int]:
    """(blocks, heads of the widest, neurons of the widest): what scores and masks are as tensors."""
    return len(blocks), max(block.heads_total for block in blocks), max(block.ffn_total for block in blocks)


def _layer_paths(model: PreTrainedModel, layers: Layers, prefix: str) -> Iterator[str]:
    for path in _entries(model, prefix + layers.path):
        if layers.inner is None:
            yield path
        else:
            yield from _entries(model, f"{path}.{layers.inner}")


def _entries(model: PreTrainedModel, path: str) -> list[str]:
    try:
        layers = model.get_submodule(path)
    except AttributeError as error:
        raise UnsupportedArchitecture(f"{type(model).__name__} has no module {path}") from error
    if not isinstance(layers, nn.ModuleList):
        raise UnsupportedArchitecture(f"{path} is a {type(layers).__name__}, not a list of layers")
    return [f"{path}.{index}" for index in range(len(layers))]


def _block(model: PreTrainedModel, layers: Layers, attention: Attention, index: int, at: str, *, first: bool) -> Block:
    module = model.get_submodule(at + attention.module)
    head_dim = int(getattr(module, attention.head_size_attribute))
    width = outputs_of(linear(model, at + attention.query))
    forward = layers.feed_forward
    return Block(
        stack=layers.stack,
        index=index,
        attention=attention.kind,
        module=at + attention.module,
        query=at + attention.query,
        key=at + attention.key,
        value=at + attention.value,
        output=at + attention.output,
        inner_output=attention.inner_output,
        positions=tuple(at + path for path in attention.position_projections if _has(model, at + path)),
        shared_bias=attention.shared_bias,
        ffn_first=tuple(at + path for path in forward.first) if first else (),
        ffn_second=at + forward.second if first else None,
        heads_attribute=attention.heads_attribute,
        width_attribute=attention.width_attribute,
        heads_total=width // head_dim // (3 if attention.query == attention.key else 1),
        head_dim=head_dim,
        group=int(getattr(module, attention.group_attribute)) if attention.group_attribute else 1,
        ffn_total=inputs_of(linear(model, at + forward.second)) if first else 0,
    )


def _has(model: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return hasattr(model.get_submodule(parent), name)
