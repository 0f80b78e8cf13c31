"""Inspection: what a model is made of and what each axis could take from it, from config.json alone. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunectl.pruning import axes, depth, planning
from prunectl.pruning.architectures import ModelShape, architecture_of, family_of, shape_of
from prunectl.schemas import InspectedStack, Inspection, ModelRef, Saving


def inspect(config: Mapping[str, Any], name: str) -> Inspection:
    """Parameters by part, heads x layers, and what each axis could save at most, of the model with config.json
    ``config``.

    Raises UnsupportedArchitecture for a family or a task head that isn't in the table.
    """
    family, shape = family_of(config), shape_of(config)
    parts = planning.count_parts(config)
    return Inspection(
        model=ModelRef(name=name),
        family=family.model_type,
        architecture=architecture_of(config),
        stacks=_stacks(config, shape),
        parameters=sum(parts.values()),
        parts=parts,
        savings=_savings(config, shape, sum(parts.values())),
    )


def _stacks(config: Mapping[str, Any], shape: ModelShape) -> list[InspectedStack]:
    found = []
    for stack in depth.stacks_of(config):
        blocks = [block for block in shape.blocks if block.stack == stack.name]
        found.append(
            InspectedStack(
                stack="decoder" if stack.name == "decoder" else "encoder",
                layers=stack.layers,
                heads=blocks[0].heads_total,
                kv_heads=blocks[0].heads_total // blocks[0].group,
                ffn=max(block.ffn_total for block in blocks),
                cross_attention=any(block.attention == "cross" for block in blocks),
                shared=stack.shared,
            )
        )
    return found


def _savings(config: Mapping[str, Any], shape: ModelShape, total: int) -> list[Saving]:
    def saving(axis: str, units: int, parameters: int, note: str | None = None) -> Saving:
        return Saving(axis=axis, units=units, parameters=parameters, share=round(parameters / total, 4), note=note)

    stacks = depth.stacks_of(config)
    gone = [stack.first + index for stack in stacks for index in range(1, stack.layers)]
    none = [0] * len(shape.blocks)
    found = []
    if shape.vocab:
        entry = planning.count_parameters({**config, "vocab_size": 2}) - planning.count_parameters(
            {**config, "vocab_size": 1}
        )
        found.append(
            saving(
                "vocab",
                shape.vocab,
                entry * shape.vocab,
                "as far as the corpus allows; special tokens and characters stay",
            )
        )
    layers = total - planning.count_parameters(depth.without(config, gone))
    heads = total - planning.count_parameters(config, none, None)
    neurons = total - planning.count_parameters(config, None, none)
    weights = axes.prunable_weights(config)
    return [
        *found,
        saving("layers", len(gone) + len(stacks), layers, "one layer of each stack stays"),
        saving("heads", shape.heads_total, heads),
        saving("ffn", shape.ffn_total, neurons),
        saving("weights", weights, weights, "set to zero; shapes and bytes stay"),
    ]
