"""Smaller but not faster: said in words, and only where both halves of it are measured."""

from __future__ import annotations

from typing import Any

import pytest

from prunectl.pace import pace

SMALLER = {"before": 90_900_000, "after": 57_700_000}


def metrics(speedup: float | None, stderr: float | None = 0.01, **sizes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {**(sizes or {"model_bytes": SMALLER}), "speedup": {"after": speedup, "stderr": stderr}}


def gate(metric: str, op: str, limit: float, passed: bool) -> dict[str, Any]:
    return {"passed": passed, "conditions": [{"metric": metric, "op": op, "limit": limit, "passed": passed}]}


def test_a_model_as_fast_as_before() -> None:
    said = "smaller but not faster: model_bytes 90.9MB to 57.7MB (-37%), yet speedup 1.01x, by its 95% bound 0.99x"
    assert pace(metrics(1.01)) == said
    assert pace(metrics(1.01), gate("speedup", ">=", 1.2, False)) == f"{said}, where the gate asks for >= 1.2"


def test_a_model_that_is_faster_but_less_than_asked() -> None:
    said = pace(metrics(1.1), gate("speedup", ">=", 1.5, False))
    assert said is not None
    assert said.startswith("smaller but not fast enough: model_bytes")
    assert said.endswith("speedup 1.10x, by its 95% bound 1.08x, where the gate asks for >= 1.5")


@pytest.mark.parametrize(
    ("speedup", "stderr", "verdict"),
    [(1.0164, 0.01, "faster"), (1.0165, 0.01, None), (1.0, None, "faster"), (1.001, None, None)],
)
def test_the_bound_decides_as_it_does_for_a_gate(speedup: float, stderr: float | None, verdict: str | None) -> None:
    said = pace(metrics(speedup, stderr))
    assert (said is None) if verdict is None else (said or "").startswith(f"smaller but not {verdict}:")


def test_the_first_size_that_fell_is_named() -> None:
    sizes = {
        "model_bytes": {"before": 100, "after": 100},
        "parameters": {"before": 1000, "after": 995},
        "nonzero_parameters": {"before": 1000, "after": 500},
    }
    assert "nonzero_parameters 1.0k to 500 (-50%)" in (pace(metrics(0.99, **sizes)) or "")


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"model_bytes": SMALLER},
        metrics(None),
        metrics(0.9, model_bytes={"before": 100, "after": 100}),
        metrics(0.9, model_bytes={"before": None, "after": 100}),
    ],
)
def test_nothing_is_said_of_what_is_not_smaller_or_was_not_timed(found: dict[str, Any]) -> None:
    assert pace(found, gate("speedup", ">=", 2, False)) is None


def test_other_gates_say_nothing_of_speed() -> None:
    assert pace(metrics(1.5), gate("eval_accuracy", ">=", 0.9, False)) is None
    assert pace(metrics(1.5), gate("speedup", ">=", 1.2, True)) is None
