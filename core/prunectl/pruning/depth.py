"""Depth: which layers leave a model, and what its configuration says then. No torch.

A layer's number counts through the stacks in order: an encoder's layers first, then the decoder's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunectl.errors import InvalidInput
from prunectl.pruning.architectures import architecture_of, family_of, shape_of
from prunectl.recipe import LayerChoice, Recipe

_PER_LAYER = ("layer_types", "attention_layers", "mlp_layer_types")
"""Lists of a configuration that have an entry a layer."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack's number of layers, the number of its first one, and the configuration's keys that count them."""

    layers: int
    first: int
    keys: tuple[str, ...]
    name: str
    """encoder or decoder"""
    path: str
    """Of its list of layers, below the base model."""
    shared: bool
    """Its layers are one set of weights, applied again and again."""


def stacks_of(config: Mapping[str, Any]) -> list[Stack]:
    """The stacks of a configuration: one, or an encoder's and a decoder's.

    Raises UnsupportedArchitecture for an unknown family.
    """
    family, words = family_of(config), shape_of(config).words
    found: list[Stack] = []
    for layers in family.stacks_for(config, architecture_of(config)):
        own = family.keys[layers.prefix + "layers"]
        alias = (
            ["num_hidden_layers"] if not found and "num_hidden_layers" in config and own != "num_hidden_layers" else []
        )
        first = sum(stack.layers for stack in found)
        number = words[layers.prefix + "layers"]
        found.append(Stack(number, first, (own, *alias), layers.stack, layers.path, layers.inner is not None))
    return found


def count(config: Mapping[str, Any], recipe: Recipe) -> int:
    """How many layers the recipe removes from this model.

    Raises InvalidInput, naming the nearest that can be met: each stack keeps a layer, and an index must name one.
    """
    if recipe.greedy:
        return _most_of_search(config, recipe)
    if recipe.layers is None:
        return 0
    stacks = stacks_of(config)
    total = sum(stack.layers for stack in stacks)
    if any(stack.shared for stack in stacks) and shape_of(config).words["groups"] > 1:
        raise InvalidInput("layers: a model that shares layers in several groups can't lose one", field="layers")
    if isinstance(recipe.layers, int):
        if recipe.layers > total - len(stacks):
            where = "it keeps one" if len(stacks) == 1 else "each stack keeps one"
            raise InvalidInput(
                f"layers={recipe.layers}: the model has {total} layers, and {where} at least; "
                f"nearest that can be met: layers={total - len(stacks)}",
                field="layers",
                value=recipe.layers,
            )
        return recipe.layers
    if recipe.layers[-1] >= total:
        raise InvalidInput(
            f"layers: there is no layer {recipe.layers[-1]}, only layers 0 to {total - 1}; nearest: {total - 1}",
            field="layers",
            value=list(recipe.layers),
        )
    for stack in stacks:
        if all(stack.first + index in recipe.layers for index in range(stack.layers)):
            raise InvalidInput(
                f"layers: {','.join(map(str, recipe.layers))} has all layers of a stack, and it keeps one at least; "
                f"nearest that can be met: without {stack.first + stack.layers - 1}",
                field="layers",
                value=list(recipe.layers),
            )
    return len(recipe.layers)


def _most_of_search(config: Mapping[str, Any], recipe: Recipe) -> int:
    """How many layers a greedy search removes at most."""
    stacks = stacks_of(config)
    most = sum(stack.layers for stack in stacks) - len(stacks)
    if any(stack.shared for stack in stacks):
        raise InvalidInput(
            "greedy_layers: the model's layers are one set of weights, so there is nothing to choose; use layers=N",
            field="greedy_layers",
            value=recipe.greedy_layers,
        )
    if recipe.greedy_layers is None:
        return most
    if recipe.greedy_layers > most:
        where = "it keeps one" if len(stacks) == 1 else "each stack keeps one"
        raise InvalidInput(
            f"greedy_layers={recipe.greedy_layers}: the model has {most + len(stacks)} layers, and {where} at least; "
            f"nearest that can be met: greedy_layers={most}",
            field="greedy_layers",
            value=recipe.greedy_layers,
        )
    return recipe.greedy_layers


def choose(config: Mapping[str, Any], recipe: Recipe, influence: Sequence[float] | None = None) -> tuple[int, ...]:
    """The numbers of the layers that the recipe removes, ascending.

    ``influence`` ``[layers]`` is needed for ``layer_choice`` influence, which takes the lowest (ShortGPT, Men et al.
    2024).
    top: nearest the output first; bottom: nearest the input first; alternate: every other one from the one below the
    top down, then the others (Sajjad et al. 2023, "On the effect of dropping layers of pre-trained transformer
    models"); random: drawn by the seed. Encoder and decoder take turns in the last three. Raises InvalidInput as
    `count` does.
    """
    wanted = count(config, recipe)
    if isinstance(recipe.layers, tuple):
        return recipe.layers
    stacks = stacks_of(config)
    left = [stack.layers for stack in stacks]
    removed: list[int] = []
    for number in _order(stacks, recipe.layer_choice, influence, recipe.seed):
        place = next(i for i, stack in enumerate(stacks) if stack.first <= number < stack.first + stack.layers)
        if len(removed) < wanted and left[place] > 1:
            left[place] -= 1
            removed.append(number)
    return tuple(sorted(removed))


def first_choice(config: Mapping[str, Any], recipe: Recipe) -> tuple[int, ...]:
    """As `choose`, but where the model would have to be measured first the layers nearest the output stand for them."""
    if recipe.greedy or (isinstance(recipe.layers, int) and recipe.layer_choice == "influence"):
        recipe = recipe.model_copy(update={"layer_choice": "top"})
    return choose(config, recipe)


def without(config: Mapping[str, Any], removed: Sequence[int]) -> dict[str, Any]:
    """The configuration of the model without the layers of these numbers."""
    changed = dict(config)
    for stack in stacks_of(config):
        kept = kept_of(stack, removed)
        for key in stack.keys:
            changed[key] = len(kept)
        for key in _PER_LAYER:
            if isinstance(changed.get(key), list) and len(changed[key]) == stack.layers:
                changed[key] = [changed[key][index] for index in kept]
    return changed


def kept_of(stack: Stack, removed: Sequence[int]) -> list[int]:
    """Indices within the stack of the layers that stay."""
    return [index for index in range(stack.layers) if stack.first + index not in removed]


def _order(stacks: Sequence[Stack], choice: LayerChoice, influence: Sequence[float] | None, seed: int) -> list[int]:
    """Every layer's number, the first to go first."""
    numbers = [(stack.first + index, index, stack.layers) for stack in stacks for index in range(stack.layers)]
    if choice == "influence":
        if influence is None or len(influence) != len(numbers):
            raise ValueError(f"choosing among {len(numbers)} layers by influence needs the influence of each")
        return [number for _, number in sorted(zip(influence, range(len(numbers)), strict=True))]
    if choice == "random":
        drawn = [number for number, _, _ in numbers]
        random.Random(seed).shuffle(drawn)
        return drawn
    places = {
        "bottom": lambda index, of: (0, index),
        "top": lambda index, of: (0, of - index),
        "alternate": lambda index, of: ((of - index) % 2, of - index),
    }
    return [
        number
        for number, index, of in sorted(numbers, key=lambda entry: (places[choice](entry[1], entry[2]), entry[0]))
    ]
