"""Greedy layer pruning (Peer et al. 2022, "Greedy-layer pruning: speeding up transformer models for natural language
processing"): step by step the layer goes without which the model, recovered, is best. No torch, no I/O.

Every candidate starts from the unpruned model, so it is known by the layers that it lacks: one search serves every size.
Layers are numbered as in `prunectl.pruning.depth`; a set of removed layers is an ascending tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunectl.pruning import depth
from prunectl.pruning.depth import Stack
from prunectl.recipe import Recipe
from prunectl.schemas import CurvePoint, Measure

SELECTION_SHARE = 0.15
"""Of the training examples: what the paper's code holds back to choose by."""
Removed = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that lacks some layers, trained. Both measures have ``before``, which is the unpruned model's."""

    removed: Removed
    job_id: str
    selection: Measure
    held_out: Measure
    curve: tuple[CurvePoint, ...] = ()
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the best of its ``candidates``, which are in the order of their layers."""

    layer: int
    best: Candidate
    candidates: tuple[tuple[int, Candidate], ...]
    kept: float
    """Share of the unpruned model's quality on the held-out examples."""
    accepted: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """A search as far as the known candidates take it.

    ``wanted`` are the candidates of the next step, known or not; none: the search is over and ``removed`` its result.
    """

    steps: tuple[Step, ...]
    removed: Removed
    wanted: tuple[Removed, ...] = ()


def neighbours(stacks: Sequence[Stack], removed: Removed) -> list[Removed]:
    """``removed`` and one layer more, for each layer that may go: every stack keeps one. In the order of the layers."""
    return [
        tuple(sorted((*removed, number)))
        for stack in stacks
        for number in range(stack.first, stack.first + stack.layers)
        if number not in removed and len(depth.kept_of(stack, removed)) > 1
    ]


def least_influential(
    options: Sequence[Removed], removed: Removed, influence: Sequence[float], k: int
) -> list[Removed]:
    """The ``k`` of ``options`` whose layer has the least block influence; ``influence`` ``[remaining layers]`` is that
    of the model without ``removed``, in the order of the layers. Ties: the lower layer.
    """
    total = len(removed) + len(influence)
    of_layer = dict(zip((n for n in range(total) if n not in removed), influence, strict=True))
    ranked = sorted(options, key=lambda option: (of_layer[added(option, removed)], added(option, removed)))
    return sorted(ranked[:k], key=lambda option: added(option, removed))


def walk(
    known: Mapping[Removed, Candidate],
    options: Callable[[Removed], Sequence[Removed]],
    *,
    most: int,
    keep: float | None = None,
    lower_is_better: bool = False,
) -> Walk:
    """Take every step for which all candidates are ``known``.

    ``options(removed)`` are the candidates of the step after ``removed``; at most ``most`` layers go. A layer is chosen
    by the metric on the examples for selection (ties: the higher layer, as in the paper's code), and the search ends
    before the first step that keeps less than ``keep`` of the unpruned model's on the held-out ones.
    """
    steps: list[Step] = []
    removed: Removed = ()
    while len(removed) < most and (tried := options(removed)):
        if any(option not in known for option in tried):
            return Walk(tuple(steps), removed, tuple(tried))
        ranked = tuple((added(option, removed), known[option]) for option in tried)
        layer, best = max(ranked, key=lambda entry: (_goodness(entry[1].selection, lower_is_better), entry[0]))
        share = kept(best.held_out, lower_is_better)
        steps.append(Step(layer, best, ranked, share, accepted=keep is None or share >= keep))
        if not steps[-1].accepted:
            break
        removed = best.removed
    return Walk(tuple(steps), removed)


def kept(measure: Measure, lower_is_better: bool) -> float:
    """Share of the unpruned model's quality: after / before, or before / after of a loss."""
    before, after = float(measure.before or 0.0), float(measure.after or 0.0)
    whole, rest = (after, before) if lower_is_better else (before, after)
    return rest / whole if whole > 0 else float(rest >= whole)


def most_trainings(stacks: Sequence[Stack], most: int, candidates: int | None) -> int:
    """How many candidates a search trains at most: kn - k(k - 1) / 2 for k of n layers of one stack."""
    total = sum(stack.layers for stack in stacks)
    return sum(min(total - step, candidates or total) for step in range(most))


def notes(config: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What a plan says of a search."""
    most = depth.count(config, recipe)
    trained = most_trainings(depth.stacks_of(config), most, recipe.candidates)
    found = [f"a search of {most} steps: trains at most {trained} candidates, each a job of its own"]
    if recipe.keep_performance is not None:
        found.append("how many layers go is known once the next one would cost too much; these counts are the most")
    return found


def added(option: Removed, removed: Removed) -> int:
    """The layer that ``option`` lacks beside ``removed``."""
    (layer,) = set(option) - set(removed)
    return layer


def _goodness(measure: Measure, lower_is_better: bool) -> float:
    value = float(measure.after if measure.after is not None else 0.0)
    return -value if lower_is_better else value
