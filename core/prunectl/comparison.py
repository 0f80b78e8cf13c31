"""Jobs side by side: their measurements, what differs by more than chance, and who is on the Pareto front. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from prunectl.schemas import SCHEMA_VERSION, Gate, ModelRef, State

STANDARD_ERRORS = 2.0
"""A difference of at most so many standard errors is not told from none."""
COST = "latency_p50_seconds"
QUALITY = ("eval_accuracy", "eval_f1", "eval_mrr_at_10", "eval_cosine", "eval_agreement", "eval_loss")
"""The first of these that every job measured stands for quality where none is named."""
SHOWN = (
    "eval_accuracy", "eval_f1", "eval_exact_match", "eval_mrr_at_10", "eval_recall_at_1", "eval_recall_at_10", "eval_cosine",
    "eval_overlap_at_10", "eval_agreement", "eval_loss", "eval_perplexity", "latency_p50_seconds", "speedup", "parameters",
    "nonzero_parameters", "model_bytes", "peak_memory_bytes",
)  # fmt: skip
"""What a comparison shows where no metrics are named, in this order."""
_MORE_IS_BETTER = ("speedup", "throughput_samples_per_second")


class Difference(BaseModel):
    """A metric's change from the baseline: ``delta`` in the metric's unit, ``relative`` as a share of ``before``.

    ``within_error`` says that it is at most `STANDARD_ERRORS` standard errors; None where no error is known.
    """

    delta: float
    relative: float | None
    within_error: bool | None


class ComparedJob(BaseModel):
    id: str
    model: ModelRef
    recipe: dict[str, Any]
    recipe_digest: str
    evaluation: dict[str, Any]
    state: State
    device: str
    gate: Gate | None
    metrics: dict[str, dict[str, float | int | None]]
    differences: dict[str, Difference]
    front: bool
    """No other of the compared jobs is at least as good in both ``x`` and ``y`` and better in one."""


class Comparison(BaseModel):
    """``metrics`` are those that are shown; ``x`` and ``y`` span the Pareto front (None: nothing in common)."""

    schema_version: int = SCHEMA_VERSION
    metrics: list[str]
    x: str | None
    y: str | None
    items: list[ComparedJob]
    notes: list[str] = []


class FrontPoint(BaseModel):
    id: str
    recipe: dict[str, Any]
    x: float
    y: float
    front: bool


class ParetoFront(BaseModel):
    """Every succeeded job with both measurements, best ``x`` first; ``front`` marks those that no other beats."""

    schema_version: int = SCHEMA_VERSION
    x: str
    y: str
    items: list[FrontPoint]


def difference(measure: Mapping[str, Any]) -> Difference | None:
    """From ``before`` to ``after``; None where either is missing.

    It is held against its own standard error where both were measured on the same examples, else against that of
    ``after``.
    """
    before, after, stderr = measure.get("before"), measure.get("after"), measure.get("difference_stderr")
    if stderr is None:
        stderr = measure.get("stderr")
    if before is None or after is None:
        return None
    delta = after - before
    return Difference(
        delta=delta,
        relative=delta / before if before else None,
        within_error=None if stderr is None else abs(delta) <= STANDARD_ERRORS * stderr,
    )


def more_is_better(metric: str) -> bool:
    """Of qualities all but losses; of costs only those that count what is done, not what it takes."""
    if metric.startswith("eval_"):
        return not metric.startswith(("eval_loss", "eval_perplexity"))
    return metric.startswith(_MORE_IS_BETTER)


def quality_of(
    jobs: Iterable[Mapping[str, Mapping[str, Any]]], conditions: Iterable[Mapping[str, Any]] = ()
) -> str | None:
    """The metric that stands for quality of all of these jobs' metrics, or None where they have none in common: the one
    that was primary in all of their ``conditions``, else the first of `QUALITY`.
    """
    measured = [{name for name, measure in metrics.items() if measure.get("after") is not None} for metrics in jobs]
    shared = set.intersection(*measured) if measured else set()
    primary = {each.get("primary_metric") for each in conditions}
    return next((name for name in (*(primary if len(primary) == 1 else ()), *QUALITY) if name in shared), None)


def front(values: Sequence[tuple[float, float]], x: str, y: str) -> list[bool]:
    """For each (x, y), whether it is on the Pareto front: none is at least as good in both and better in one."""
    signs = [-1.0 if more_is_better(name) else 1.0 for name in (x, y)]
    costs = [(signs[0] * left, signs[1] * right) for left, right in values]
    found = [False] * len(costs)
    best, last = float("inf"), None
    for index in sorted(range(len(costs)), key=lambda i: costs[i]):
        _, cost = costs[index]
        # Sorted by x, then y: what comes earlier is as good in x, so only a better y, or an equal point, is on the front.
        if cost < best or costs[index] == last:
            found[index], best, last = True, min(best, cost), costs[index]
    return found
