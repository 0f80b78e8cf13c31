"""The solver: budgets are kept whatever the scores, the best answer is found, a larger budget is never worse."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunectl.errors import CorruptWeights, InvalidInput
from prunectl.evaluation import macs
from prunectl.pruning import axes, budgets, engine, planning, surgery
from prunectl.pruning.blocks import described, find_blocks
from prunectl.pruning.levels import LevelCosts
from prunectl.pruning.masks import masks_within
from prunectl.pruning.scores import Scores
from prunectl.pruning.solver import UnitCosts
from prunectl.recipe import Recipe
from support.models import EVERY_FAMILY, heads_of, model
from support.pruning import batches, loss

score = st.floats(0, 100, allow_nan=False, width=32)


@st.composite
def unit_problems(draw: Any, costs: int = 2) -> tuple[list[list[float]], UnitCosts, list[int]]:
    """Scores, costs and what stays at least, of up to 4 axes of up to 4 units."""
    prices = draw(st.lists(st.integers(1, 40), min_size=costs, max_size=costs))
    values = draw(st.lists(st.lists(score, min_size=1, max_size=4), min_size=1, max_size=4))
    units = [draw(st.sampled_from(prices)) for _ in values]
    least = [draw(st.integers(0, len(axis))) if draw(st.booleans()) else 0 for axis in values]
    return values, UnitCosts(draw(st.integers(0, 50)), units), least


def worth(values: list[list[float]], kept: Any) -> float:
    return sum(sum(sorted(axis, reverse=True)[:count]) for axis, count in zip(values, kept, strict=True))


def brute_force(values: list[list[float]], costs: Any, least: list[int], budget: float, levels: Any) -> float:
    """The best of all answers."""
    choices = itertools.product(*levels)
    fitting = [
        worth(values, kept)
        for kept in choices
        if all(count >= low for count, low in zip(kept, least, strict=True)) and costs.total(kept) <= budget
    ]
    return max(fitting, default=0.0)


@given(unit_problems(), st.integers(0, 700))
@settings(max_examples=150, deadline=None)
def test_two_costs_are_solved_exactly_within_the_budget(problem: Any, budget: int) -> None:
    values, costs, least = problem
    if costs.total(least) > budget:
        with pytest.raises(InvalidInput, match="budget"):
            costs.solve(values, least, budget)
        return
    kept = costs.solve(values, least, budget)
    assert costs.total(kept) <= budget
    assert all(low <= count <= len(axis) for low, count, axis in zip(least, kept, values, strict=True))
    levels = [range(len(axis) + 1) for axis in values]
    assert worth(values, kept) == pytest.approx(brute_force(values, costs, least, budget, levels), rel=1e-9)


@given(unit_problems(), st.integers(0, 500), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_a_larger_budget_is_never_worse(problem: Any, budget: int, more: int) -> None:
    values, costs, least = problem
    budget += costs.total(least)
    small, large = (worth(values, costs.solve(values, least, limit)) for limit in (budget, budget + more))
    assert large >= small - 1e-9 * abs(small)


@given(unit_problems(costs=4), st.integers(0, 700))
@settings(max_examples=100, deadline=None)
def test_many_costs_keep_to_the_budget(problem: Any, budget: int) -> None:
    values, costs, least = problem
    budget += costs.total(least)
    kept = costs.solve(values, least, budget)
    assert costs.total(kept) <= budget and all(low <= count for low, count in zip(least, kept, strict=True))


@st.composite
def level_problems(draw: Any) -> tuple[list[list[float]], LevelCosts, list[int]]:
    """Up to 3 axes of up to 4 units with any latency at each count, as measured ones may fall where units are more."""
    values = draw(st.lists(st.lists(score, min_size=1, max_size=4), min_size=1, max_size=3))
    seconds = [[draw(st.integers(1, 60)) / 1000 for _ in range(len(axis) + 1)] for axis in values]
    least = [draw(st.integers(0, len(axis))) if draw(st.booleans()) else 0 for axis in values]
    levels = [list(range(len(axis) + 1)) for axis in values]
    return values, LevelCosts(draw(st.integers(0, 40)) / 1000, levels, seconds), least


@given(level_problems(), st.integers(0, 250))
@settings(max_examples=150, deadline=None)
def test_measured_levels_are_kept_to_and_nearly_best(problem: Any, budget: int) -> None:
    values, costs, least = problem
    floor = costs.fixed + sum(min(s[low:]) for s, low in zip(costs.seconds, least, strict=True))
    if floor > budget / 1000:
        with pytest.raises(InvalidInput, match="budget"):
            costs.solve(values, least, budget / 1000)
        return
    kept = costs.solve(values, least, budget / 1000)
    assert costs.total(kept) <= budget / 1000 + 1e-12
    # Rounding costs up gives away one part of the room an axis at most.
    room = (budget / 1000 - floor) * (1 - len(values) / 4000)
    assert worth(values, kept) >= brute_force(values, costs, least, floor + room - 1e-12, costs.levels) - 1e-9


def test_a_block_that_costs_more_than_it_is_worth_goes_whole() -> None:
    costs = LevelCosts(0.0, [[0, 1, 2], [0, 1, 2]], [[0.0, 9.0, 10.0], [0.0, 9.0, 10.0]])
    assert costs.solve([[1.0, 1.0], [3.0, 2.0]], [0, 0], 12.0) == [0, 2]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_cut_model_has_at_most_the_multiply_adds_of_its_target(family: str) -> None:
    built = model(family, heads_of(family)[-1], layers=3)
    seq, target = 20, 0.6
    recipe = Recipe(target_macs=target)
    whole = macs.count(built, seq)
    aim = engine.macs_target(described(built), recipe, seq)
    assert aim.budget <= target * whole
    masks = engine.choose_masks(built, recipe, batches(built, 2), loss, target=aim)
    surgery.apply(built, masks)
    left = macs.count(built, seq)
    assert left <= aim.budget
    blocks = find_blocks(built)
    costs = aim.costs.units[: len(blocks)]  # type: ignore[attr-defined]
    assert left > aim.budget - max(*costs, *aim.costs.units), "another unit would have fitted"  # type: ignore[attr-defined]


def test_minimums_and_multiples_hold_and_the_better_units_stay() -> None:
    built = model("bert", "fill-mask", layers=3)
    recipe = Recipe(target_macs=0.9, min_heads=1, min_ffn=8, multiple_of=4)
    blocks, config = find_blocks(built), described(built)
    scores = Scores(torch.rand(3, 4), torch.rand(3, 48))
    scores.heads[1] = scores.ffn[1] = 0.0
    costs = budgets.unit_costs(config, recipe, 20)
    least = costs.total(budgets.least_units(recipe, blocks))
    masks = masks_within(scores, recipe, blocks, costs, least + (planning.count_macs(config, 20) - least) // 3)
    assert masks.heads is not None and masks.ffn is not None
    assert masks.heads[1].sum() == 1 and masks.ffn[1].sum() == 8
    assert (masks.ffn.sum(1) % 4 == 0).all()
    for row in (0, 2):
        for mask, found in ((masks.heads[row], scores.heads[row]), (masks.ffn[row], scores.ffn[row])):
            assert found[mask].min() > (found[~mask].max() if (~mask).any() else -1)


def test_heads_that_share_a_key_go_together() -> None:
    built = model("llama", "feature-extraction")
    masks = engine.choose_masks(built, Recipe(target_macs=0.5), batches(built), loss, target=None)
    group = find_blocks(built)[0].group
    assert group > 1 and masks.heads is not None
    grouped = masks.heads.view(len(masks.heads), -1, group)
    assert torch.equal(grouped.any(-1), grouped.all(-1)) and not masks.heads.all()


def test_scores_that_are_no_numbers_are_refused() -> None:
    built = model("bert", "fill-mask")
    costs = budgets.unit_costs(described(built), Recipe(target_macs=0.5), 20)
    with pytest.raises(CorruptWeights):
        masks_within(
            Scores(torch.rand(2, 4), torch.full((2, 48), float("nan"))), Recipe(target_macs=0.5), find_blocks(built),
            costs, 1e12,
        )  # fmt: skip


def test_a_plan_estimates_within_the_target_and_refuses_what_cannot_be_met() -> None:
    config = described(model("bert", "feature-extraction", layers=3))
    plan = axes.plan(config, Recipe(target_macs=0.6), 20)
    whole = planning.count_macs(config, 20)
    assert 0.5 * whole < plan.macs(20) <= 0.6 * whole
    assert any("solver" in note for note in plan.notes)
    with pytest.raises(InvalidInput, match="nearest that can be met: 0") as caught:
        axes.plan(config, Recipe(target_macs=0.6, min_heads=3, min_ffn=40), 20)
    assert caught.value.field == "target_macs"
    with pytest.raises(InvalidInput, match="min_heads=9"):
        axes.plan(config, Recipe(target_macs=0.6, min_heads=9), 20)
    with pytest.raises(InvalidInput, match="multiple_of=7"):
        axes.plan(config, Recipe(target_macs=0.6, multiple_of=7), 20)
