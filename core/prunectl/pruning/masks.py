"""Masks: which units stay. Pure functions from scores and counts; ties and order are TextPruner's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunectl.errors import CorruptWeights
from prunectl.pruning import planning
from prunectl.pruning.scores import Scores
from prunectl.recipe import Recipe

Choose = Callable[[Tensor, int, bool, int], Tensor]
"""(scores ``[layers, units]``, units that stay, even, multiple_of) -> bool ``[layers, units]``."""


@dataclass(frozen=True, slots=True)
class Masks:
    """True where a unit stays. None: this axis is untouched."""

    heads: Tensor | None = None
    """``[layers, heads]``, bool."""
    ffn: Tensor | None = None
    """``[layers, neurons]``, bool."""


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


def next_masks(scores: Scores, recipe: Recipe, step: int, before: Masks, choose: Choose = keep_best) -> Masks:
    """The masks after iteration ``step`` (from 0) of ``recipe.iterations``; what ``before`` removed stays removed.

    Raises InvalidInput where the counts contradict each other, CorruptWeights where scores aren't finite.
    """
    heads, ffn = before.heads, before.ffn
    if recipe.heads is not None:
        layers, units = scores.heads.shape
        removed = planning.steps(planning.removed_heads(recipe, layers, units), recipe.iterations)[step]
        ranked = _bounded("head", scores.heads, planning.least_heads(recipe), heads)
        heads = choose(ranked, layers * units - removed, recipe.even, 1)
    if recipe.ffn is not None:
        layers, units = scores.ffn.shape
        removed = planning.steps(planning.removed_ffn(recipe, layers, units), recipe.iterations)[step]
        least = math.ceil(recipe.min_ffn / recipe.multiple_of) * recipe.multiple_of
        ranked = _bounded("neuron", scores.ffn, least, ffn)
        ffn = choose(ranked, layers * units - removed, recipe.even, recipe.multiple_of)
    return Masks(heads, ffn)


def _bounded(unit: str, scores: Tensor, least: int, before: Tensor | None) -> Tensor:
    """Scores below all others for what is gone already and above all others for the ``least`` best of each layer."""
    if not torch.isfinite(scores).all():
        raise CorruptWeights(
            f"the {unit} scores are not finite numbers: a weight of the model is not, or the loss overflowed",
            hint="check the model's weights, or calibrate on other data",
        )
    bounded = scores.clone()
    if before is not None:
        bounded[~before] = -1.0
    if least:
        best = torch.argsort(bounded, dim=-1)[:, scores.size(1) - least :]
        bounded.scatter_(1, best, math.inf)
    return bounded
