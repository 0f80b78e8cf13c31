"""A sweep's report: points where their figures are, the front through the right ones."""

from __future__ import annotations

import re
from typing import Any

import pytest

from prunectl.comparison import ComparedJob, Comparison, Difference
from prunectl.reporting.sweep_report import comparison_report, scatter, ticks, varied
from prunectl.schemas import ModelRef


def compared(id: str, heads: float, latency: float, accuracy: float, *, front: bool, **more: Any) -> ComparedJob:
    given: dict[str, Any] = {
        "id": id,
        "model": ModelRef(name="org/tiny"),
        "recipe": {"heads": heads, "scorer": "taylor", "seed": 0},
        "recipe_digest": "sha256:x",
        "evaluation": {},
        "state": "succeeded",
        "device": "cpu",
        "gate": None,
        "metrics": {
            "latency_p50_seconds": {"before": 0.02, "after": latency},
            "eval_accuracy": {"before": 0.9, "after": accuracy, "stderr": 0.01, "n": 100},
        },
        "differences": {"eval_accuracy": Difference(delta=accuracy - 0.9, relative=None, within_error=False)},
        "front": front,
    }
    return ComparedJob(**(given | more))


JOBS = [
    compared("a", 0.1, 0.018, 0.89, front=True),
    compared("b", 0.5, 0.010, 0.80, front=True),
    compared("c", 0.3, 0.019, 0.70, front=False),
]


def comparison(jobs: list[ComparedJob], **more: Any) -> Comparison:
    given = {"metrics": ["eval_accuracy", "latency_p50_seconds"], "x": "latency_p50_seconds", "y": "eval_accuracy"}
    return Comparison(items=jobs, **(given | more))


def test_points_lie_as_their_figures_do() -> None:
    found = scatter(comparison(JOBS))
    assert found is not None
    base, a, b, c = found.points
    assert base.base and base.x > c.x > a.x > b.x  # slower is further right
    assert base.y < a.y < b.y < c.y  # better is higher, and y counts from the top
    assert a.low is not None and a.high is not None and a.low > a.y > a.high
    assert a.low - a.y == pytest.approx(a.y - a.high)


def test_the_front_joins_its_points_in_order() -> None:
    found = scatter(comparison(JOBS))
    assert found is not None
    _, a, b, _ = found.points
    assert found.line == f"{b.x:.1f},{b.y:.1f} {a.x:.1f},{a.y:.1f}"


def test_one_job_alone_still_has_a_plane() -> None:
    same = compared("a", 0.1, 0.02, 0.9, front=True)
    assert scatter(comparison([same])) is not None
    assert "<polyline" not in comparison_report(comparison([same]), title="One")


def test_jobs_without_a_common_measurement_have_a_table_alone() -> None:
    queued = compared("a", 0.1, 0.02, 0.9, front=False, metrics={}, differences={}, state="queued")
    page = comparison_report(comparison([queued], x=None, y=None), title="Waiting")
    assert "<svg" not in page and "queued" in page


def test_a_recipe_is_told_by_what_differs() -> None:
    assert varied(JOBS[0], JOBS) == "heads=0.1"
    page = comparison_report(comparison(JOBS), title="Three")
    assert "in all recipes" in page and "seed=0" in page


def test_the_table_has_the_unpruned_model_errors_and_the_front() -> None:
    page = comparison_report(comparison(JOBS), title="Three", facts=[("sweep", "<s>")])
    assert "&lt;s&gt;" in page
    assert re.search(r"unpruned</th><td></td><td class=\"n\">0\.9</td>", page)
    assert page.count(" *</th>") == 2
    assert "±0.01" in page


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), ([3, 3], [3]), ([0.0101, 0.0329], [0.015, 0.02, 0.025, 0.03])],
)
def test_ticks_are_round_and_inside(values: list[float], expected: list[float]) -> None:
    assert ticks(values) == pytest.approx(expected)
