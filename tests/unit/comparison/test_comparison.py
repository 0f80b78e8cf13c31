"""Differences, directions and the Pareto front."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunectl.comparison import SHOWN, difference, front, more_is_better, quality_of
from prunectl.conditions import METRICS
from prunectl.evaluation.gates import LOWER_IS_BETTER


@pytest.mark.parametrize(
    ("measure", "delta", "within"),
    [
        ({"before": 0.747, "after": 0.741, "stderr": 0.01}, -0.006, True),
        ({"before": 0.75, "after": 0.7301, "stderr": 0.01}, -0.0199, True),
        ({"before": 0.75, "after": 0.729, "stderr": 0.01}, -0.021, False),
        ({"before": 10, "after": 5}, -5, None),
        # Measured on the same examples, a difference has an error of its own, smaller than the value's.
        ({"before": 0.75, "after": 0.74, "stderr": 0.01, "difference_stderr": 0.004}, -0.01, False),
        ({"before": 0.75, "after": 0.74, "stderr": 0.001, "difference_stderr": 0.006}, -0.01, True),
    ],
)
def test_a_difference_is_told_from_chance(measure: dict[str, Any], delta: float, within: bool | None) -> None:
    found = difference(measure)
    assert found is not None
    assert found.delta == pytest.approx(delta)
    assert found.within_error is within
    assert found.relative == pytest.approx(delta / measure["before"])


def test_what_was_not_measured_differs_from_nothing() -> None:
    assert difference({"after": 1.42}) is None
    assert difference({"before": 1.0, "after": None}) is None
    zero = difference({"before": 0, "after": 3})
    assert zero is not None and zero.relative is None


@pytest.mark.parametrize(
    ("metric", "more"),
    [("eval_accuracy", True), ("eval_loss", False), ("speedup_batch_16", True), ("latency_p50_seconds", False),
     ("throughput_samples_per_second", True), ("parameters", False), ("peak_memory_bytes", False)],
)  # fmt: skip
def test_directions(metric: str, more: bool) -> None:
    assert more_is_better(metric) is more


def test_quality_is_what_all_measured() -> None:
    full = {"eval_accuracy": {"after": 0.7}, "eval_loss": {"after": 1.0}}
    assert quality_of([full, full]) == "eval_accuracy"
    assert quality_of([full, {"eval_loss": {"after": 2.0}}]) == "eval_loss"
    assert quality_of([full, {"eval_cosine": {"after": 0.9}}]) is None
    assert quality_of([]) is None


numbers = st.sampled_from([0.0, 1.0, 2.0, 3.0])


@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_the_front_is_what_no_other_beats(points: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        # x is a latency, y an accuracy
        return any(
            other[0] <= point[0] and other[1] >= point[1] and (other[0] < point[0] or other[1] > point[1])
            for other in points
        )

    assert front(points, "latency_p50_seconds", "eval_accuracy") == [not beaten(point) for point in points]


def test_what_was_primary_in_all_jobs_stands_for_quality() -> None:
    tagged = {"eval_accuracy": {"after": 0.97}, "eval_f1": {"after": 0.8}}
    assert quality_of([tagged, tagged], [{"primary_metric": "eval_f1"}] * 2) == "eval_f1"
    assert quality_of([tagged, tagged], [{"primary_metric": "eval_f1"}, {}]) == "eval_accuracy"
    assert quality_of([tagged], [{"primary_metric": "eval_loss"}]) == "eval_accuracy"


def test_the_direction_of_every_quality() -> None:
    less = {name for name in METRICS if name.startswith("eval_") and not more_is_better(name)}
    assert less == {"eval_loss", "eval_perplexity"} == LOWER_IS_BETTER
    assert {name for name in SHOWN if name.startswith("eval_")} == {
        name for name in METRICS if name.startswith("eval_")
    }
