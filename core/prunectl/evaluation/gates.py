"""The verdict on a result: conditions that it must meet, separate from the job's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunectl.conditions import COMPARE, CONFIDENCE, DROP, Wanted, Z, parse_gate
from prunectl.errors import InvalidInput, nearest
from prunectl.evaluation.tasks import Task, kind_of
from prunectl.schemas import Condition, Evaluation, Gate, Measure

LOWER_IS_BETTER = frozenset({"eval_loss", "eval_perplexity"})


def primary_metric(task: Task, metrics: Mapping[str, Measure], asked: str | None = None) -> str:
    """The metric that ``--metric`` names, else the task's usual one, else the first quality metric there is.

    Raises InvalidInput where the one asked for was not measured.
    """
    quality = [name for name in metrics if name.startswith("eval_")]
    if asked is not None:
        if asked not in quality:
            near = nearest(asked, quality)
            raise InvalidInput(
                f"metric {asked!r} is not measured for this task; there are {', '.join(quality)}",
                field="metric",
                value=asked,
                hint=f"did you mean {near}?" if near else None,
            )
        return asked
    kind = kind_of(task)
    return next((usual for usual in (kind.primary, kind.fidelity) if usual in quality), quality[0])


def conditions_of(evaluation: Evaluation, task: Task, metrics: Mapping[str, Measure]) -> list[Wanted]:
    """What the result must meet: ``max_drop`` and ``min_speedup`` as the conditions they stand for, then ``gate``."""
    wanted = []
    if evaluation.max_drop is not None:
        name = primary_metric(task, metrics, evaluation.metric)
        wanted.append(Wanted(f"{name}{DROP}", "<=", evaluation.max_drop))
    if evaluation.min_speedup is not None:
        wanted.append(Wanted("speedup", ">=", evaluation.min_speedup))
    return wanted + [each for text in evaluation.gate for each in parse_gate(text)]


def verdict(wanted: Sequence[Wanted], metrics: Mapping[str, Measure]) -> Gate | None:
    """None without a condition.

    An estimate is held against a limit by its one-sided 95 % confidence bound (normal approximation), not by its
    value: what passes is better than the limit by more than chance. A drop is counted in the metric's own unit,
    positive when it got worse, with the error of the paired difference. What was not measured doesn't pass.
    """
    conditions = [_decide(each, metrics) for each in wanted]
    return Gate(passed=all(c.passed for c in conditions), conditions=conditions) if conditions else None


def _decide(wanted: Wanted, metrics: Mapping[str, Measure]) -> Condition:
    value, stderr = _estimate(wanted.name, metrics)
    decided = Condition(metric=wanted.name, op=wanted.op, limit=wanted.limit, value=value, passed=False)
    if value is None:
        return decided
    bound = None
    if stderr is not None:
        bound = value + (-Z if wanted.op.startswith(">") else Z) * stderr
    passed = COMPARE[wanted.op](value if bound is None else bound, wanted.limit)
    return decided.model_copy(
        update={"passed": bool(passed), "bound": bound, "confidence": None if bound is None else CONFIDENCE}
    )


def _estimate(name: str, metrics: Mapping[str, Measure]) -> tuple[float | None, float | None]:
    """The value that a condition speaks of and its standard error; (None, None) where it was not measured."""
    measure = metrics.get(name.removesuffix(DROP))
    if measure is None or measure.after is None:
        return None, None
    if not name.endswith(DROP):
        return measure.after, measure.stderr
    if measure.before is None:
        return None, None
    worse = 1 if name.removesuffix(DROP) in LOWER_IS_BETTER else -1
    return worse * (measure.after - measure.before) + 0.0, measure.difference_stderr  # + 0.0: never -0.0
