"""The search itself: which candidates it wants, which layer it drops, when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunectl.pruning import greedy
from prunectl.pruning.depth import Stack
from prunectl.pruning.greedy import Candidate, Removed, Walk
from prunectl.schemas import Measure


def stack(layers: int, first: int = 0, name: str = "encoder") -> Stack:
    return Stack(layers, first, ("num_hidden_layers",), name, "encoder.layer", False)


def candidate(removed: Removed, value: float, held_out: float | None = None, before: float = 1.0) -> Candidate:
    held = Measure(before=before, after=value if held_out is None else held_out)
    return Candidate(removed, f"job-{removed}", Measure(before=before, after=value), held)


def played(
    stacks: Sequence[Stack], values: Mapping[Removed, float], most: int, **more: float
) -> tuple[Walk, list[Removed]]:
    """The end of a search in which each set of removed layers is worth ``values``, and what it trained."""
    known: dict[Removed, Candidate] = {}
    walked = partial(greedy.walk, known, partial(greedy.neighbours, stacks), most=most, **more)
    while (walk := walked()).wanted:
        missing = [removed for removed in walk.wanted if removed not in known]
        assert missing, "a look that finds nothing new would never end"
        known |= {removed: candidate(removed, values.get(removed, 0.0)) for removed in missing}
    return walk, list(known)


def test_each_step_drops_the_layer_without_which_the_model_is_best() -> None:
    values = {(0,): 0.6, (1,): 0.9, (2,): 0.8, (3,): 0.7, (0, 1): 0.5, (1, 2): 0.4, (1, 3): 0.55}
    walk, trained = played([stack(4)], values, 2)
    assert [step.layer for step in walk.steps] == [1, 3]
    assert walk.removed == (1, 3)
    assert len(trained) == 4 + 3 == greedy.most_trainings([stack(4)], 2, None)


def test_of_equals_the_higher_layer_goes() -> None:
    assert played([stack(4)], {}, 1)[0].removed == (3,)


def test_every_stack_keeps_a_layer() -> None:
    stacks = [stack(2), stack(2, 2, "decoder")]
    assert greedy.neighbours(stacks, (1,)) == [(1, 2), (1, 3)]
    assert played(stacks, {}, 2)[0].removed == (1, 3)
    assert greedy.neighbours(stacks, (1, 3)) == []


def test_it_ends_before_the_step_that_loses_too_much_and_shows_that_step() -> None:
    walk, _ = played([stack(4)], {(3,): 0.97, (1, 3): 0.95, (0, 1, 3): 0.94}, 3, keep=0.95)
    assert walk.removed == (1, 3)
    assert [(step.layer, step.accepted) for step in walk.steps] == [(3, True), (1, True), (0, False)]


def test_the_choice_is_by_selection_and_the_end_by_what_was_held_out() -> None:
    known = {
        (0,): candidate((0,), 0.9, held_out=0.5),
        (1,): candidate((1,), 0.8, held_out=0.99),
    }
    walk = greedy.walk(known, partial(greedy.neighbours, [stack(2)]), most=1, keep=0.9)
    assert (walk.steps[0].layer, walk.steps[0].accepted, walk.removed) == (0, False, ())


@pytest.mark.parametrize(
    ("before", "after", "lower", "share"),
    [(0.8, 0.6, False, 0.75), (1.0, 1.25, True, 0.8), (0.0, 0.0, False, 1.0), (0.0, 0.3, False, 1.0)],
)
def test_what_is_kept(before: float, after: float, lower: bool, share: float) -> None:
    assert greedy.kept(Measure(before=before, after=after), lower) == pytest.approx(share)


def test_a_loss_is_chosen_by_its_smallest() -> None:
    known = {(0,): candidate((0,), 0.9), (1,): candidate((1,), 1.4)}
    options = partial(greedy.neighbours, [stack(2)])
    assert greedy.walk(known, options, most=1, lower_is_better=True).removed == (0,)


def test_the_least_influential_are_named_by_the_original_numbers() -> None:
    options = greedy.neighbours([stack(5)], (1,))
    assert greedy.least_influential(options, (1,), [0.4, 0.1, 0.3, 0.1], 2) == [(1, 2), (1, 4)]


@given(st.integers(2, 6), st.data())
def test_any_kill_any_order_the_same_search(layers: int, data: st.DataObject) -> None:
    """However the candidates' ends interleave with looks, each is wanted once, and the result is the undisturbed one."""
    most = data.draw(st.integers(1, layers - 1))
    undisturbed, trained = played([stack(layers)], values := _values(layers, data), most)
    known: dict[Removed, Candidate] = {}
    queued: list[Removed] = []
    while (walk := greedy.walk(known, partial(greedy.neighbours, [stack(layers)]), most=most)).wanted:
        queued += [removed for removed in walk.wanted if removed not in queued]
        waiting = [removed for removed in queued if removed not in known]
        for removed in data.draw(st.permutations(waiting))[: data.draw(st.integers(1, len(waiting)))]:
            known[removed] = candidate(removed, values.get(removed, 0.0))
    assert walk.removed == undisturbed.removed
    assert sorted(queued) == sorted(trained)
    assert len(queued) == greedy.most_trainings([stack(layers)], most, None)
    shorter = greedy.walk(known, partial(greedy.neighbours, [stack(layers)]), most=1)
    assert not shorter.wanted, "one search serves every size"
    assert shorter.removed == undisturbed.steps[0].best.removed


def _values(layers: int, data: st.DataObject) -> dict[Removed, float]:
    tenths = data.draw(st.lists(st.integers(0, 10), min_size=2**layers, max_size=2**layers))
    return {
        tuple(number for number in range(layers) if mask >> number & 1): tenths[mask] / 10 for mask in range(2**layers)
    }
