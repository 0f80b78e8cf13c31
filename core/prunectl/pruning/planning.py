"""What a recipe would remove and what the model would then hold, from config.json alone. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from prunectl.errors import InvalidInput
from prunectl.pruning.architectures import ModelShape, architecture_of, family_of, shape_of, textpruner_families
from prunectl.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Planned:
    """Units of the whole model: how many there are and how many a recipe removes."""

    heads_total: int
    heads_removed: int
    ffn_total: int
    ffn_removed: int


@dataclass(frozen=True, slots=True)
class Shares:
    """Units that each layer keeps if the layers share the removal as evenly as whole units allow, ``[layers]`` each."""

    heads: list[int]
    ffn: list[int]
    approximate: bool
    """Counts depend on which layer loses how much. Never so while all layers of a family are of one size."""


def count_parameters(
    config: Mapping[str, Any], heads_kept: Sequence[int] | None = None, ffn_kept: Sequence[int] | None = None
) -> int:
    """Parameters of the model that ``architectures[0]`` names, tied weights once.

    ``heads_kept`` and ``ffn_kept`` count what each layer keeps, ``[layers]``; None: all.
    Raises UnsupportedArchitecture.
    """
    shape, head = shape_of(config), family_of(config).head_of(architecture_of(config))
    heads, ffn = _kept(shape, heads_kept, ffn_kept)
    total = (shape.vocab + shape.positions + shape.types) * shape.embedding + 2 * shape.embedding
    if shape.embedding != shape.hidden:
        total += (shape.embedding + 1) * shape.hidden
    for kept_heads, kept_neurons in zip(heads, ffn, strict=True):
        width = kept_heads * shape.head_dim
        total += 3 * (shape.hidden + 1) * width + width * shape.hidden + shape.hidden
        total += (shape.hidden + 1) * kept_neurons + kept_neurons * shape.hidden + shape.hidden
        total += 4 * shape.hidden  # two norms
    for linear in head.linears:
        total += (shape.width(linear.inputs) + 1) * shape.width(linear.outputs)
    total += sum(2 * shape.width(size) for size in head.norms)
    if head.vocabulary_projection is not None:
        total += shape.vocab
        if not shape.tied:
            total += shape.vocab * shape.width(head.vocabulary_projection) + (shape.vocab if head.separate_bias else 0)
    return total


def count_macs(
    config: Mapping[str, Any], seq: int, heads_kept: Sequence[int] | None = None, ffn_kept: Sequence[int] | None = None
) -> int:
    """Multiply-adds of the linear layers and both attention products, batch 1 x ``seq`` tokens.

    The vocabulary projection is counted at every position, poolers and classifiers at the one they are applied to,
    look-ups as nothing. ``heads_kept`` and ``ffn_kept`` are per layer, ``[layers]``; None: all.
    Raises UnsupportedArchitecture.
    """
    shape, head = shape_of(config), family_of(config).head_of(architecture_of(config))
    heads, ffn = _kept(shape, heads_kept, ffn_kept)
    total = seq * shape.embedding * shape.hidden if shape.embedding != shape.hidden else 0
    for kept_heads, kept_neurons in zip(heads, ffn, strict=True):
        width = kept_heads * shape.head_dim
        total += 4 * seq * shape.hidden * width + 2 * seq * seq * width
        total += 2 * seq * shape.hidden * kept_neurons
    for linear in head.linears:
        total += (seq if linear.every_position else 1) * shape.width(linear.inputs) * shape.width(linear.outputs)
    if head.vocabulary_projection is not None:
        total += seq * shape.width(head.vocabulary_projection) * shape.vocab
    return total


def units_to_remove(config: Mapping[str, Any], recipe: Recipe) -> Planned:
    """How many heads and neurons the recipe takes from this model.

    Raises UnsupportedArchitecture, and InvalidInput (naming the field and the nearest value that can be met) where the
    fraction, the minimum a layer and ``multiple_of`` contradict each other or the engine doesn't know the family.
    """
    family, shape = family_of(config), shape_of(config)
    if recipe.engine == "textpruner" and not family.in_textpruner:
        raise InvalidInput(
            f"engine textpruner has no {family.model_type} in its model map; it has {', '.join(textpruner_families())}",
            hint="leave the engine out: the native one takes every supported family",
            field="engine",
            value="textpruner",
        )
    return Planned(
        heads_total=shape.heads_total,
        heads_removed=removed_heads(recipe, shape.layers, shape.heads),
        ffn_total=shape.ffn_total,
        ffn_removed=removed_ffn(recipe, shape.layers, shape.ffn),
    )


def even_shares(config: Mapping[str, Any], planned: Planned) -> Shares:
    """A plan's totals spread over the layers, for `count_parameters` and `count_macs`."""
    layers = shape_of(config).layers
    heads = _spread(planned.heads_total - planned.heads_removed, layers)
    ffn = _spread(planned.ffn_total - planned.ffn_removed, layers)
    return Shares(heads, ffn, approximate=False)


def least_heads(recipe: Recipe) -> int:
    """Heads that each layer keeps at least: TextPruner never takes a layer's last head."""
    return max(recipe.min_heads, 1) if recipe.engine == "textpruner" else recipe.min_heads


def removed_heads(recipe: Recipe, layers: int, per_layer: int) -> int:
    """Heads removed from ``layers`` x ``per_layer``; raises InvalidInput where the minimum a layer can't be kept."""
    if recipe.heads is None:
        return 0
    return _removed("heads", "min_heads", recipe.heads, layers, per_layer, least_heads(recipe), 1, recipe.even)


def removed_ffn(recipe: Recipe, layers: int, per_layer: int) -> int:
    """Neurons removed from ``layers`` x ``per_layer``, each layer keeping a multiple of ``multiple_of``.

    As in TextPruner, what stays is rounded down to the multiple. Raises InvalidInput where that can't be met.
    """
    if recipe.ffn is None:
        return 0
    multiple = recipe.multiple_of
    if per_layer % multiple:
        close = min(_divisors(per_layer), key=lambda divisor: (abs(divisor - multiple), -divisor))
        raise InvalidInput(
            f"multiple_of={multiple} doesn't divide the {per_layer} neurons of a layer; nearest that does: {close}",
            field="multiple_of",
            value=multiple,
        )
    return _removed("ffn", "min_ffn", recipe.ffn, layers, per_layer, recipe.min_ffn, multiple, recipe.even)


def share(fraction: float, total: int) -> int:
    """floor(fraction x total) of the fraction as it was written: 0.29 of 100 is 29, not the 28 of binary floats."""
    return int(Decimal(repr(fraction)) * total)


def steps(removed: int, iterations: int) -> list[int]:
    """Units removed in all after each iteration, in TextPruner's arithmetic: the first ones take what is left over."""
    each, more = divmod(removed, iterations)
    return [each * step + min(step, more) for step in range(1, iterations + 1)]


def _removed(
    name: str, minimum_name: str, fraction: float, layers: int, per_layer: int, minimum: int, multiple: int, even: bool
) -> int:
    if minimum > per_layer:
        raise InvalidInput(
            f"{minimum_name}={minimum}: a layer has only {per_layer}; nearest: {per_layer}",
            field=minimum_name,
            value=minimum,
        )
    scope, copies = (per_layer, layers) if even else (layers * per_layer, 1)
    kept = (scope - share(fraction, scope)) // multiple * multiple
    least = math.ceil(minimum / multiple) * multiple * (1 if even else layers)
    if kept < least:
        most = _largest_share(scope - least, scope)
        where = "each layer (layer 0 first)" if even else f"the {layers} layers together"
        raise InvalidInput(
            f"{name}={fraction} leaves too little: {where} would keep {kept}, and {minimum_name}={minimum} asks for "
            f"{least}; nearest that can be met: {name}={most:f}",
            hint=f"remove less, or lower {minimum_name}",
            field=name,
            value=fraction,
        )
    if kept == 0:
        close = max(divisor for divisor in _divisors(per_layer) if divisor <= scope - share(fraction, scope))
        raise InvalidInput(
            f"multiple_of={multiple} is more than {name}={fraction} leaves, so nothing would stay; nearest: {close}",
            field="multiple_of",
            value=multiple,
        )
    return (scope - kept) * copies


def _largest_share(removed: int, total: int) -> Decimal:
    """The largest fraction in ten-thousandths whose share of ``total`` is at most ``removed``."""
    ten_thousandths = min(math.ceil(Fraction(removed + 1, total) * 10_000) - 1, 9_999)
    return (Decimal(ten_thousandths) / 10_000).normalize()


def _spread(total: int, layers: int) -> list[int]:
    each, more = divmod(total, layers)
    return [each + (index < more) for index in range(layers)]


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _kept(
    shape: ModelShape, heads_kept: Sequence[int] | None, ffn_kept: Sequence[int] | None
) -> tuple[Sequence[int], Sequence[int]]:
    heads = [shape.heads] * shape.layers if heads_kept is None else heads_kept
    ffn = [shape.ffn] * shape.layers if ffn_kept is None else ffn_kept
    if len(heads) != shape.layers or len(ffn) != shape.layers:
        raise ValueError(f"the model has {shape.layers} layers; kept counts are for {len(heads)} and {len(ffn)}")
    return heads, ffn
