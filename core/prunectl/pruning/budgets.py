"""Budgets: what a recipe's target lets a model cost, from config.json alone. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from prunectl.errors import InvalidInput
from prunectl.pruning import planning
from prunectl.pruning.architectures import shape_of
from prunectl.pruning.planning import Shares, Sized
from prunectl.pruning.solver import UnitCosts
from prunectl.recipe import Recipe


def least_units(recipe: Recipe, blocks: Sequence[Sized]) -> list[int]:
    """What a solver keeps at least, in units that go together: of the heads of each block, then of the neurons of each
    block that has any.

    Raises InvalidInput where ``multiple_of`` or a minimum can't be met.
    """
    ffn = [block.ffn_total for block in blocks if block.ffn_total]
    planning.check_multiple(recipe.multiple_of, ffn)
    for name, minimum, units in (
        ("min_heads", planning.least_heads(recipe), [block.heads_total for block in blocks]),
        ("min_ffn", recipe.min_ffn, ffn),
    ):
        planning.check_minimum(name, minimum, min(units))
    heads = [math.ceil(planning.least_heads(recipe) / block.group) for block in blocks]
    return heads + [math.ceil(recipe.min_ffn / recipe.multiple_of)] * len(ffn)


def unit_costs(config: Mapping[str, Any], recipe: Recipe, seq: int) -> UnitCosts:
    """Multiply-adds of the units that `least_units` counts, batch 1 x ``seq`` tokens."""
    blocks = shape_of(config).blocks
    none = [0] * len(blocks)
    fixed = planning.count_macs(config, seq, none, none)

    def with_one(row: int, number: int, heads: bool) -> int:
        one = [number if other == row else 0 for other in range(len(blocks))]
        return planning.count_macs(config, seq, one if heads else none, none if heads else one) - fixed

    units = [with_one(row, block.group, True) for row, block in enumerate(blocks)]
    units += [with_one(row, recipe.multiple_of, False) for row, block in enumerate(blocks) if block.ffn_total]
    return UnitCosts(fixed, units)


def check(config: Mapping[str, Any], recipe: Recipe, seq: int, whole: int | None = None) -> int:
    """Multiply-adds that ``target_macs`` leaves of ``whole`` (None: of the model with ``config``), batch 1 x ``seq``.

    Raises InvalidInput where what the recipe can't remove from the model with ``config`` exceeds that, naming the
    nearest target that can be met.
    """
    assert recipe.target_macs is not None
    total = whole or planning.count_macs(config, seq)
    spent = unit_costs(config, recipe, seq).total(least_units(recipe, shape_of(config).blocks))
    budget = planning.share(recipe.target_macs, total)
    if spent > budget:
        nearest = Decimal(math.ceil(Fraction(spent, total) * 1000)) / 1000
        raise InvalidInput(
            f"target_macs={recipe.target_macs}: without the heads and neurons that may go, the model still has {spent:,} "
            f"of its {total:,} multiply-adds (embeddings, task head, minimums); nearest that can be met: {nearest}",
            field="target_macs",
            value=recipe.target_macs,
            hint="raise the target, or lower min_heads and min_ffn",
        )
    return budget


def estimated_shares(config: Mapping[str, Any], recipe: Recipe, seq: int, budget: int) -> Shares:
    """The same share of heads and of neurons kept in each block, the largest in thousandths whose multiply-adds keep to
    ``budget``: what a plan can say before the solver has seen scores.
    """
    blocks = shape_of(config).blocks
    for thousandths in range(1000, -1, -1):
        heads = [block.heads_total // block.group * thousandths // 1000 * block.group for block in blocks]
        multiple = recipe.multiple_of
        ffn = [block.ffn_total // multiple * thousandths // 1000 * multiple for block in blocks]
        if planning.count_macs(config, seq, heads, ffn) <= budget:
            break
    return Shares(heads, ffn, approximate=False)
