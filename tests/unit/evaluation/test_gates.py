"""The verdict: estimates are held against limits by their confidence bounds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from prunectl.evaluation import gates
from prunectl.schemas import Evaluation, Gate, Measure

METRICS = {
    "eval_accuracy": Measure(before=0.92, after=0.91, stderr=0.02, n=400, difference_stderr=0.004),
    "eval_loss": Measure(before=0.30, after=0.35, stderr=0.02, n=400, difference_stderr=0.01),
    "model_bytes": Measure(before=100, after=60),
    "speedup": Measure(after=1.3, stderr=0.05, n=50),
}


def judge(**settings: object) -> Gate | None:
    evaluation = Evaluation.model_validate(settings)
    return gates.verdict(gates.conditions_of(evaluation, "text-classification", METRICS), METRICS)


def test_without_a_condition_there_is_no_verdict() -> None:
    assert judge() is None


@pytest.mark.parametrize(
    ("condition", "bound", "passed"),
    [
        ("eval_accuracy>=0.87", 0.91 - 1.6449 * 0.02, True),
        ("eval_accuracy>=0.90", 0.91 - 1.6449 * 0.02, False),
        ("eval_loss<=0.40", 0.35 + 1.6449 * 0.02, True),
        ("eval_loss<0.36", 0.35 + 1.6449 * 0.02, False),
        ("eval_loss_drop<=0.07", 0.05 + 1.6449 * 0.01, True),
        ("eval_loss_drop<=0.06", 0.05 + 1.6449 * 0.01, False),
        ("speedup>=1.2", 1.3 - 1.6449 * 0.05, True),
        ("speedup>=1.25", 1.3 - 1.6449 * 0.05, False),
        ("model_bytes<=60", None, True),
        ("model_bytes<60", None, False),
    ],
)
def test_the_bound_decides_not_the_value(condition: str, bound: float | None, passed: bool) -> None:
    gate = judge(gate=condition)
    assert gate is not None
    [decided] = gate.conditions
    assert (decided.passed, gate.passed) == (passed, passed)
    assert decided.bound == (None if bound is None else pytest.approx(bound, abs=1e-4))
    assert decided.confidence == (None if bound is None else 0.95)


def test_a_drop_has_the_error_of_the_paired_difference() -> None:
    gate = judge(max_drop=0.017)
    assert gate is not None and gate.passed  # 0.01 + 1.645 x 0.004; by the error of one side it would be 0.043
    assert gate.conditions[0].metric == "eval_accuracy_drop"
    assert not judge(max_drop=0.015).passed  # type: ignore[union-attr]


def test_no_drop_is_a_plain_zero() -> None:
    alike = {"eval_accuracy": Measure(before=0.9, after=0.9)}
    gate = gates.verdict(gates.parse_gate("eval_accuracy_drop<=0"), alike)
    assert gate is not None and str(gate.conditions[0].value) == "0.0"


def test_every_condition_must_hold() -> None:
    gate = judge(max_drop=0.05, min_speedup=1.1, gate=["model_bytes<=50 and eval_loss<1"])
    assert gate is not None and not gate.passed
    assert [c.passed for c in gate.conditions] == [True, True, False, True]


def test_what_was_not_measured_does_not_pass() -> None:
    gate = judge(gate="eval_f1>=0.1")
    assert gate is not None and not gate.passed
    assert gate.conditions[0].value is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("eval_f1", "is not a condition"), ("f1>=0.9", "is not a metric"), ("eval_f1=0.9", "compares by")],
)
def test_a_wrong_condition_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Evaluation.model_validate({"gate": text})
