"""The blocks of a model: each attention and feed-forward pair, by module path."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from prunectl.errors import UnsupportedArchitecture
from prunectl.pruning.architectures import Attention, Kind, Layers, Stack, family_of


@dataclass(frozen=True, slots=True)
class Block:
    """One block, with the paths of its modules in the model it was found in."""

    stack: Stack
    index: int
    attention: Kind
    module: str
    """The attention module that holds the count of heads."""
    query: str
    key: str
    value: str
    output: str
    inner_output: str | None
    """The output matrix's name within ``module``, if it lives there."""
    ffn_first: tuple[str, ...]
    ffn_second: str
    heads_attribute: str
    width_attribute: str
    heads_total: int
    head_dim: int
    ffn_total: int


def base_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder below a task head; the model itself where there is none."""
    base = getattr(model, model.base_model_prefix, model)
    return base if isinstance(base, PreTrainedModel) else model


def base_path(model: PreTrainedModel) -> str:
    """What stands before a path of the base model in this model: ``"bert."``, or nothing for a bare encoder."""
    return "" if base_of(model) is model else f"{model.base_model_prefix}."


def linear(model: nn.Module, path: str) -> nn.Linear:
    """The linear layer at ``path``; raises UnsupportedArchitecture where there is none."""
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise UnsupportedArchitecture(f"{type(model).__name__} has no module {path}") from error
    if not isinstance(module, nn.Linear):
        raise UnsupportedArchitecture(f"{path} is a {type(module).__name__}, not a linear layer")
    return module


def find_blocks(model: PreTrainedModel) -> list[Block]:
    """Every block in order. Raises UnsupportedArchitecture for a family that isn't in the table."""
    family = family_of(model.config.to_dict())
    prefix = base_path(model)
    return [
        _block(model, layers, attention, index, f"{prefix}{layers.path}.{index}.")
        for layers in family.stacks
        for index in range(_length(model, prefix + layers.path))
        for attention in layers.attentions
    ]


def shape(blocks: list[Block]) -> tuple[int, int, int]:
    """(layers, heads a layer, neurons a layer). Raises UnsupportedArchitecture where the layers differ already."""
    sizes = {(block.heads_total, block.ffn_total) for block in blocks}
    if len(sizes) != 1:
        raise UnsupportedArchitecture(
            "the layers of this model differ in heads or neurons: it has been pruned already",
            hint="prune the original model with a recipe that removes more",
        )
    ((heads, ffn),) = sizes
    return len(blocks), heads, ffn


def _length(model: PreTrainedModel, path: str) -> int:
    layers = model.get_submodule(path)
    if not isinstance(layers, nn.ModuleList):
        raise UnsupportedArchitecture(f"{path} is a {type(layers).__name__}, not a list of layers")
    return len(layers)


def _block(model: PreTrainedModel, layers: Layers, attention: Attention, index: int, at: str) -> Block:
    query = linear(model, at + attention.query)
    head_dim = int(model.get_submodule(at + attention.module).attention_head_size)  # type: ignore[arg-type]
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
        ffn_first=tuple(at + path for path in layers.feed_forward.first),
        ffn_second=at + layers.feed_forward.second,
        heads_attribute=attention.heads_attribute,
        width_attribute=attention.width_attribute,
        heads_total=query.out_features // head_dim,
        head_dim=head_dim,
        ffn_total=linear(model, at + layers.feed_forward.second).in_features,
    )
