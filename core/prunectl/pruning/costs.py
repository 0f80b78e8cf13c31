"""Costs: the parameters and multiply-adds of a model with what it keeps, from config.json alone. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunectl.pruning.architectures import BlockShape, ModelShape, architecture_of, family_of, shape_of
from prunectl.pruning.family import Linear


def count_parameters(
    config: Mapping[str, Any], heads_kept: Sequence[int] | None = None, ffn_kept: Sequence[int] | None = None
) -> int:
    """Parameters of the model that ``architectures[0]`` names, tied weights once.

    ``heads_kept`` and ``ffn_kept`` count what each block keeps, ``[blocks]``; None: all.
    Raises UnsupportedArchitecture.
    """
    return sum(count_parts(config, heads_kept, ffn_kept).values())


def count_parts(
    config: Mapping[str, Any], heads_kept: Sequence[int] | None = None, ffn_kept: Sequence[int] | None = None
) -> dict[str, int]:
    """The parameters that `count_parameters` counts, by part: embeddings (with what a stack holds once, such as
    relative positions), attention, ffn, norms (of the layers), head. Raises UnsupportedArchitecture.
    """
    family = family_of(config)
    shape, head = shape_of(config), family.head_of(architecture_of(config))
    stacks = family.stacks_for(config, architecture_of(config))
    held = [*family.tensors, *(tensor for layers in stacks for tensor in layers.tensors)]
    parts = {
        "embeddings": sum(map(shape.numel, held)) + _linear_parameters(shape, family.linears),
        "attention": 0,
        "ffn": 0,
        "norms": 0,
        "head": _linear_parameters(shape, head.linears) + sum(shape.width(size) for size in head.norms),
    }
    for block, heads, neurons in zip(shape.blocks, *_kept(shape, heads_kept, ffn_kept), strict=True):
        parts["attention"] += _attention_parameters(shape, block, heads)
        if block.ffn_total:
            parts["ffn"] += _ffn_parameters(shape, block, neurons)
            parts["norms"] += sum(shape.width(size) for size in block.layers.norms)
    if head.vocabulary_projection is not None:
        parts["head"] += shape.vocab * head.vocabulary_bias
        if not shape.tied:
            matrix = shape.vocab * shape.width(head.vocabulary_projection)
            parts["head"] += matrix + (shape.vocab if head.separate_bias else 0)
    return parts


def count_macs(
    config: Mapping[str, Any], seq: int, heads_kept: Sequence[int] | None = None, ffn_kept: Sequence[int] | None = None
) -> int:
    """Multiply-adds of the linear layers and both attention products, batch 1 x ``seq`` tokens.

    The vocabulary projection is counted at every position, poolers and classifiers at the one they are applied to,
    look-ups as nothing, shared layers as often as they run. An encoder-decoder reads ``seq`` tokens on either side; an
    image has as many positions as its configuration says, whatever ``seq``. Disentangled attention (DeBERTa) adds its
    projections of relative positions and the products with them. ``heads_kept`` and ``ffn_kept`` are per block,
    ``[blocks]``; None: all. Raises UnsupportedArchitecture.
    """
    family = family_of(config)
    shape, head = shape_of(config), family.head_of(architecture_of(config))
    if "patches" in shape.words:
        seq = shape.words["places"]
    places = {"seq": seq, "one": 1, "patches": shape.words.get("patches", 0)}
    total = 0
    for block, heads, neurons in zip(shape.blocks, *_kept(shape, heads_kept, ffn_kept), strict=True):
        macs = _attention_macs(shape, block, heads, seq)
        macs += (len(block.layers.feed_forward.first) + 1) * seq * shape.hidden * neurons
        total += block.runs * macs
    for linear in (*family.linears, *head.linears):
        weights = shape.width(linear.present) * shape.width(linear.inputs) * shape.width(linear.outputs)
        total += places[linear.positions] * weights
    if head.vocabulary_projection is not None:
        total += seq * shape.width(head.vocabulary_projection) * shape.vocab
    return total


def _linear_parameters(shape: ModelShape, linears: Sequence[Linear]) -> int:
    return sum(
        shape.width(linear.present)
        * (shape.width(linear.inputs) + shape.width(linear.bias))
        * shape.width(linear.outputs)
        for linear in linears
    )


def _attention_parameters(shape: ModelShape, block: BlockShape, heads: int) -> int:
    entry, width = block.entry, heads * block.head_dim
    inputs = shape.hidden + shape.width(entry.input_bias)
    total = inputs * (width + 2 * width // block.group)
    total += width * shape.hidden + shape.width(entry.output_bias) * shape.hidden
    if entry.position_projections:
        total += shape.words["position_projections"] * (shape.hidden + 1) * width
    return total + sum(shape.width(size) for size in entry.norms)


def _ffn_parameters(shape: ModelShape, block: BlockShape, neurons: int) -> int:
    entry = block.layers.feed_forward
    first = len(entry.first) * (shape.hidden + shape.width(entry.first_bias)) * neurons
    return first + neurons * shape.hidden + shape.width(entry.second_bias) * shape.hidden


def _attention_macs(shape: ModelShape, block: BlockShape, heads: int, seq: int) -> int:
    width = heads * block.head_dim
    total = seq * shape.hidden * (2 * width + 2 * width // block.group) + 2 * seq * seq * width
    if block.entry.position_projections:
        relative = shape.words["relative"]
        total += shape.words["position_linears"] * relative * shape.hidden * width
        total += shape.words["position_products"] * seq * relative * width
    return total


def _kept(
    shape: ModelShape, heads_kept: Sequence[int] | None, ffn_kept: Sequence[int] | None
) -> tuple[Sequence[int], Sequence[int]]:
    heads = [block.heads_total for block in shape.blocks] if heads_kept is None else heads_kept
    ffn = [block.ffn_total for block in shape.blocks] if ffn_kept is None else ffn_kept
    if len(heads) != len(shape.blocks) or len(ffn) != len(shape.blocks):
        raise ValueError(f"the model has {len(shape.blocks)} blocks; kept counts are for {len(heads)} and {len(ffn)}")
    return heads, ffn
