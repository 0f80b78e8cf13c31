"""Masks: which units stay. Pure functions from scores and counts; ties and order are TextPruner's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunectl.errors import CorruptWeights
from prunectl.pruning import budgets, planning
from prunectl.pruning.planning import Ranking, Sized
from prunectl.pruning.scores import Scores
from prunectl.pruning.solver import Costs
from prunectl.recipe import Recipe

Choose = Callable[[Tensor, int, bool, int], Tensor]
"""(scores ``[layers, units]``, units that stay, even, multiple_of) -> bool ``[layers, units]``."""


@dataclass(frozen=True, slots=True)
class Masks:
    """True where a unit stays. None: this axis is untouched.

    Rows are those of `prunectl.pruning.blocks.find_blocks`, as wide as the widest block; what a row has no unit for is
    True.
    """

    heads: Tensor | None = None
    """``[blocks, heads]``, bool."""
    ffn: Tensor | None = None
    """``[blocks, neurons]``, bool."""


def keep_best(scores: Tensor, kept: int, even: bool = False, multiple_of: int = 1) -> Tensor:
    """The ``kept`` units with the highest scores, as a bool mask ``[layers, units]``.

    ``even``: the same number in each layer. ``multiple_of``: a layer's units go in groups of that many, sorted by
    score, and groups are ranked by their sum. Computes what TextPruner's ``generate_mask`` does, but that it leaves an
    empty layer empty.
    """
    layers, units = scores.shape
    mask = torch.ones_like(scores, dtype=torch.bool)
    if even:
        stay = kept // layers // multiple_of * multiple_of
        for layer, row in enumerate(scores):
            mask[layer, torch.argsort(row)[: units - stay]] = False
    elif multiple_of == 1:
        mask.view(-1)[torch.argsort(scores.reshape(-1))[: layers * units - kept]] = False
    else:
        order = torch.argsort(scores, dim=-1)
        groups = units // multiple_of
        sums = torch.gather(scores, 1, order).view(layers, groups, multiple_of).sum(-1).view(-1)
        drop = torch.argsort(sums)[: layers * groups - kept // multiple_of]
        members = order.view(layers * groups, multiple_of)[drop]
        mask[(drop // groups).unsqueeze(1), members] = False
    return mask


def next_masks(
    scores: Scores, recipe: Recipe, step: int, before: Masks, blocks: Sequence[Sized], choose: Choose = keep_best
) -> Masks:
    """The masks after iteration ``step`` (from 0) of ``recipe.iterations``; what ``before`` removed stays removed.

    Raises InvalidInput where the counts contradict each other, CorruptWeights where scores aren't finite.
    """
    heads, ffn = before.heads, before.ffn
    if recipe.heads is not None:
        rankings = planning.rank_heads(recipe, blocks)
        least = planning.least_heads(recipe)
        heads = _masked("head", scores.heads, rankings, least, heads, step, recipe, choose, 1)
    if recipe.ffn is not None:
        rankings = planning.rank_ffn(recipe, blocks)
        least = math.ceil(recipe.min_ffn / recipe.multiple_of) * recipe.multiple_of
        ffn = _masked("neuron", scores.ffn, rankings, least, ffn, step, recipe, choose, recipe.multiple_of)
    return Masks(heads, ffn)


def masks_within(scores: Scores, recipe: Recipe, blocks: Sequence[Sized], costs: Costs, budget: float) -> Masks:
    """The masks with the largest sum of scores that cost at most ``budget``, in the unit of ``costs``.

    ``costs`` has an axis for the heads of each block (in groups that share a key), then one for the neurons of each
    block that has any (in groups of ``multiple_of``), as `budgets.unit_costs` counts them. ``min_heads`` and
    ``min_ffn`` stay in each. Raises InvalidInput where even those cost more, CorruptWeights for scores that aren't
    finite.
    """
    _require_finite("head", scores.heads)
    _require_finite("neuron", scores.ffn)
    rows = [row for row, block in enumerate(blocks) if block.ffn_total]
    orders: list[Tensor] = []
    values: list[Tensor] = []
    for row, block in enumerate(blocks):
        grouped = scores.heads[row, : block.heads_total].view(-1, block.group).sum(1)
        orders.append(torch.argsort(grouped, descending=True, stable=True))
        values.append(grouped)
    for row in rows:
        neurons = scores.ffn[row, : blocks[row].ffn_total]
        order = torch.argsort(neurons, descending=True, stable=True)
        orders.append(order)
        values.append(neurons[order].view(-1, recipe.multiple_of).sum(1))
    kept = costs.solve([found.tolist() for found in values], budgets.least_units(recipe, blocks), budget)
    heads, ffn = torch.ones_like(scores.heads, dtype=torch.bool), torch.ones_like(scores.ffn, dtype=torch.bool)
    for row, block in enumerate(blocks):
        stay = torch.zeros(block.heads_total // block.group, dtype=torch.bool)
        stay[orders[row][: kept[row]]] = True
        heads[row, : block.heads_total] = stay.repeat_interleave(block.group)
    for place, row in enumerate(rows, start=len(blocks)):
        stay = torch.zeros(blocks[row].ffn_total, dtype=torch.bool)
        stay[orders[place][: kept[place] * recipe.multiple_of]] = True
        ffn[row, : blocks[row].ffn_total] = stay
    spent = costs.total(kept)
    assert spent <= budget * (1 + 1e-9), f"the solver spent {spent} of {budget}"
    return Masks(heads, ffn)


def _masked(
    unit: str,
    scores: Tensor,
    rankings: Sequence[Ranking],
    least: int,
    before: Tensor | None,
    step: int,
    recipe: Recipe,
    choose: Choose,
    multiple_of: int,
) -> Tensor:
    """Choose within each ranking. Units of a group go together, by the sum of their scores."""
    mask = torch.ones_like(scores, dtype=torch.bool)
    for ranking in rankings:
        rows, width, group = list(ranking.rows), max(ranking.units), ranking.group
        missing = torch.arange(width) >= torch.tensor(ranking.units).unsqueeze(1)
        ranked = scores[rows, :width].masked_fill(missing, 0)
        gone = None if before is None else ~before[rows, :width]
        if group > 1:
            ranked = ranked.unflatten(1, (-1, group)).sum(-1)
            missing, gone = missing[:, ::group], None if gone is None else gone[:, ::group]
        ranked = _bounded(unit, ranked, math.ceil(least / group), missing, gone)
        removed = planning.steps(ranking.removed // group, recipe.iterations)[step]
        kept = choose(ranked, ranked.numel() - removed, recipe.even, multiple_of)
        mask[torch.tensor(rows).unsqueeze(1), torch.arange(width)] = kept.repeat_interleave(group, dim=1)
    return mask


def _bounded(unit: str, scores: Tensor, least: int, missing: Tensor, gone: Tensor | None) -> Tensor:
    """Scores below all others for what is gone already; above all others for the ``least`` best of each layer and for
    places where a row has no unit.
    """
    _require_finite(unit, scores)
    bounded = scores.clone()
    if gone is not None:
        bounded[gone] = -1.0
    if least:
        best = torch.argsort(bounded.masked_fill(missing, -2.0), dim=-1)[:, scores.size(1) - least :]
        bounded.scatter_(1, best, math.inf)
    return bounded.masked_fill(missing, math.inf)


def _require_finite(unit: str, scores: Tensor) -> None:
    if not torch.isfinite(scores).all():
        raise CorruptWeights(
            f"the {unit} scores are not finite numbers: a weight of the model is not, or the loss overflowed",
            hint="check the model's weights, or calibrate on other data",
        )
