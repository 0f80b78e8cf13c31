"""What a recipe would remove, from config.json alone; what the model then holds, `costs` counts. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from prunectl.errors import InvalidInput
from prunectl.pruning.architectures import Kind, Stack, family_of, shape_of, textpruner_families
from prunectl.pruning.costs import count_macs, count_parameters, count_parts
from prunectl.recipe import Recipe

__all__ = [
    "Planned", "Ranking", "Shares", "Sized", "check_engine", "count_macs", "count_parameters", "count_parts", "even_shares", "kind_of",
    "least_heads", "rank_ffn", "rank_heads", "share", "steps", "units_to_remove",
]  # fmt: skip


_VOCABULARY_ALONE = ("bart", "t5", "mt5")
"""In TextPruner 1.1.post2's model map, and out of reach of its structural pruner."""


class Sized(Protocol):
    """What counting needs of a block, whether of a plan or of a model: `BlockShape` and `Block` have it."""

    @property
    def stack(self) -> Stack: ...
    @property
    def attention(self) -> Kind: ...
    @property
    def heads_total(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def ffn_total(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Ranking:
    """Blocks whose units are ranked together, and how many of those units go."""

    rows: tuple[int, ...]
    """Places in the list of blocks."""
    units: tuple[int, ...]
    """Units of each of these blocks."""
    removed: int
    group: int = 1
    """Units that stay or go together: query heads that share a key and a value."""

    @property
    def total(self) -> int:
        return sum(self.units)


@dataclass(frozen=True, slots=True)
class Planned:
    """Units of the whole model: how many there are and how many a recipe removes."""

    heads_total: int
    heads_removed: int
    ffn_total: int
    ffn_removed: int
    rankings: tuple[tuple[Ranking, ...], tuple[Ranking, ...]] = ((), ())
    """Of heads and of neurons."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Units that each block keeps if blocks share the removal as evenly as whole units allow, ``[blocks]`` each."""

    heads: list[int]
    ffn: list[int]
    approximate: bool
    """Parameters and MACs depend on which block loses how much: their heads or neurons aren't all of one cost."""


def units_to_remove(config: Mapping[str, Any], recipe: Recipe) -> Planned:
    """How many heads and neurons the recipe takes from this model.

    Raises UnsupportedArchitecture, and InvalidInput (naming the field and the nearest value that can be met) where the
    fraction, the minimum a layer and ``multiple_of`` contradict each other or the engine doesn't know the family.
    """
    family, shape = family_of(config), shape_of(config)
    check_engine(family.model_type, recipe)
    heads, ffn = rank_heads(recipe, shape.blocks), rank_ffn(recipe, shape.blocks)
    return Planned(
        heads_total=shape.heads_total,
        heads_removed=sum(ranking.removed for ranking in heads),
        ffn_total=shape.ffn_total,
        ffn_removed=sum(ranking.removed for ranking in ffn),
        rankings=(tuple(heads), tuple(ffn)),
    )


def check_engine(model_type: str, recipe: Recipe) -> None:
    """Raises InvalidInput, naming those it takes, where the recipe's engine can't cut the family's layers."""
    if recipe.engine != "textpruner" or model_type in textpruner_families():
        return
    why = ""
    if model_type in _VOCABULARY_ALONE:
        why = (
            " (its model map has the family for vocabulary alone: its scores read config.intermediate_size, "
            "which this family doesn't have)"
        )
    raise InvalidInput(
        f"engine textpruner can't prune the layers of {model_type}{why}; it takes {', '.join(textpruner_families())}",
        hint="leave the engine out: the native one takes every supported family",
        field="engine",
        value="textpruner",
    )


def even_shares(config: Mapping[str, Any], planned: Planned) -> Shares:
    """A plan's totals spread over the blocks, for `count_parameters` and `count_macs`."""
    blocks = shape_of(config).blocks
    kept = [[block.heads_total for block in blocks], [block.ffn_total for block in blocks]]
    approximate = False
    for counts, rankings in zip(kept, planned.rankings, strict=True):
        for ranking in rankings:
            for row, left in zip(ranking.rows, _spread(ranking), strict=True):
                counts[row] = left
            costs = {(blocks[row].head_dim, blocks[row].runs) for row in ranking.rows}
            approximate = approximate or (ranking.removed > 0 and len(costs) > 1)
    return Shares(kept[0], kept[1], approximate)


def kind_of(block: Sized) -> str:
    """encoder, decoder or cross: what ``heads`` of a recipe can tell apart."""
    return "cross" if block.attention == "cross" else block.stack


def rank_heads(recipe: Recipe, blocks: Sequence[Sized]) -> list[Ranking]:
    """Which heads are ranked together and how many go; nothing where the recipe leaves heads alone.

    Raises InvalidInput for a kind of attention that the model hasn't, or a minimum a layer that can't be kept.
    """
    if recipe.heads is None:
        return []
    by_kind = isinstance(recipe.heads, dict)
    fractions = dict[str, float](recipe.heads.items()) if isinstance(recipe.heads, dict) else {"": recipe.heads}
    kinds = dict.fromkeys(kind_of(block) for block in blocks)
    unknown = [kind for kind in fractions if by_kind and kind not in kinds]
    if unknown:
        raise InvalidInput(
            f"heads: the model has no {unknown[0]} attention; it has {', '.join(kinds)}",
            hint=f"use heads={next(iter(fractions.values()))} for all heads, or name {' or '.join(kinds)}",
            field="heads",
            value=fractions,
        )
    return [
        ranking
        for kind, fraction in fractions.items()
        for ranking in _rankings(
            name=f"heads {kind}".strip(),
            minimum_name="min_heads",
            fraction=fraction,
            units={row: block.heads_total for row, block in enumerate(blocks) if not kind or kind_of(block) == kind},
            minimum=least_heads(recipe),
            even=recipe.even,
            group=blocks[0].group,
        )
    ]


def rank_ffn(recipe: Recipe, blocks: Sequence[Sized]) -> list[Ranking]:
    """Which neurons are ranked together and how many go, each layer keeping a multiple of ``multiple_of``.

    As in TextPruner, what stays is rounded down to the multiple. Raises InvalidInput where that can't be met.
    """
    if recipe.ffn is None:
        return []
    units = {row: block.ffn_total for row, block in enumerate(blocks) if block.ffn_total}
    multiple = recipe.multiple_of
    check_multiple(multiple, units.values())
    return _rankings(
        name="ffn",
        minimum_name="min_ffn",
        fraction=recipe.ffn,
        units=units,
        minimum=recipe.min_ffn,
        even=recipe.even,
        multiple=multiple,
    )


def least_heads(recipe: Recipe) -> int:
    """Heads that each layer keeps at least: TextPruner never takes a layer's last head."""
    return max(recipe.min_heads, 1) if recipe.engine == "textpruner" else recipe.min_heads


def share(fraction: float, total: int) -> int:
    """floor(fraction x total) of the fraction as it was written: 0.29 of 100 is 29, not the 28 of binary floats."""
    return int(Decimal(repr(fraction)) * total)


def steps(removed: int, iterations: int) -> list[int]:
    """Units removed in all after each iteration, in TextPruner's arithmetic: the first ones take what is left over."""
    each, more = divmod(removed, iterations)
    return [each * step + min(step, more) for step in range(1, iterations + 1)]


def _rankings(
    *,
    name: str,
    minimum_name: str,
    fraction: float,
    units: Mapping[int, int],
    minimum: int,
    even: bool,
    multiple: int = 1,
    group: int = 1,
) -> list[Ranking]:
    """One ranking of all rows; with ``even``, one for each size of row."""
    found = []
    for size in dict.fromkeys(units.values()) if even else [None]:
        rows = {row: number for row, number in units.items() if size in (None, number)}
        removed = _removed(
            name, minimum_name, fraction, tuple(rows.values()), minimum, multiple=multiple, group=group, even=even
        )
        found.append(Ranking(tuple(rows), tuple(rows.values()), removed, group))
    return found


def _removed(
    name: str,
    minimum_name: str,
    fraction: float,
    units: tuple[int, ...],
    minimum: int,
    *,
    multiple: int,
    group: int,
    even: bool,
) -> int:
    per_layer = min(units)
    check_minimum(minimum_name, minimum, per_layer)
    scope, copies = (per_layer, len(units)) if even else (sum(units), 1)
    # Whole groups of heads never take more than the floor; neurons round what stays, as TextPruner does.
    kept = (scope - share(fraction, scope) // group * group) // multiple * multiple
    together = max(multiple, group)
    least = math.ceil(minimum / together) * together * (1 if even else len(units))
    if kept < least:
        most = _largest_share(scope - least + group - 1, scope)
        where = "each layer (layer 0 first)" if even else f"the {len(units)} layers together"
        raise InvalidInput(
            f"{name}={fraction} leaves too little: {where} would keep {kept}, and {minimum_name}={minimum} asks for "
            f"{least}; nearest that can be met: {name}={most:f}",
            hint=f"remove less, or lower {minimum_name}",
            field=name.partition(" ")[0],
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


def check_multiple(multiple: int, units: Iterable[int]) -> None:
    """Raises InvalidInput where ``multiple`` doesn't divide the neurons of each layer, naming the nearest that does."""
    for per_layer in units:
        if per_layer % multiple:
            close = min(_divisors(per_layer), key=lambda divisor: (abs(divisor - multiple), -divisor))
            raise InvalidInput(
                f"multiple_of={multiple} doesn't divide the {per_layer} neurons of a layer; nearest that does: {close}",
                field="multiple_of",
                value=multiple,
            )


def check_minimum(name: str, minimum: int, per_layer: int) -> None:
    """Raises InvalidInput where a layer has fewer than ``minimum``."""
    if minimum > per_layer:
        raise InvalidInput(
            f"{name}={minimum}: a layer has only {per_layer}; nearest: {per_layer}", field=name, value=minimum
        )


def _largest_share(removed: int, total: int) -> Decimal:
    """The largest fraction in ten-thousandths whose share of ``total`` is at most ``removed``."""
    ten_thousandths = min(math.ceil(Fraction(removed + 1, total) * 10_000) - 1, 9_999)
    return (Decimal(ten_thousandths) / 10_000).normalize()


def _spread(ranking: Ranking) -> list[int]:
    """What each row of a ranking keeps if all lose the same share, as far as whole groups allow."""
    left = (ranking.total - ranking.removed) // ranking.group
    sizes = [units // ranking.group for units in ranking.units]
    kept = [left * size // sum(sizes) for size in sizes]
    more = left - sum(kept)
    for row in sorted(range(len(sizes)), key=lambda row: kept[row] - sizes[row])[:more]:
        kept[row] += 1
    return [units * ranking.group for units in kept]


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
