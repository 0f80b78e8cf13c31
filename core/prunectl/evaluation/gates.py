"""The verdict on a result: conditions that it must meet, separate from the job's state."""

from __future__ import annotations

from collections.abc import Mapping

from prunectl.errors import InvalidInput, nearest
from prunectl.schemas import Condition, Evaluation, Gate, Measure

PRIMARY_METRIC = {
    "fill-mask": "eval_accuracy",
    "text-classification": "eval_accuracy",
    "text-generation": "eval_accuracy",
    "text2text-generation": "eval_accuracy",
    "image-classification": "eval_agreement",
    "feature-extraction": "eval_cosine",
}
_LOWER_IS_BETTER = frozenset({"eval_loss", "eval_perplexity"})


def primary_metric(task: str, metrics: Mapping[str, Measure], asked: str | None = None) -> str:
    """The metric that ``--metric`` names, else the task's usual one, else the first quality metric there is.

    Raises InvalidInput where the one asked for was not measured.
    """
    quality = [name for name, measure in metrics.items() if measure.n is not None]
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
    usual = PRIMARY_METRIC[task]
    return usual if usual in quality else ("eval_agreement" if "eval_agreement" in quality else quality[0])


def verdict(evaluation: Evaluation, task: str, metrics: Mapping[str, Measure]) -> Gate | None:
    """None where no condition was set. A drop is counted in the metric's own unit, positive when it got worse."""
    conditions = []
    if evaluation.max_drop is not None:
        name = primary_metric(task, metrics, evaluation.metric)
        before, after = metrics[name].before, metrics[name].after
        drop = None
        if before is not None and after is not None:
            drop = after - before if name in _LOWER_IS_BETTER else before - after
        conditions.append(
            Condition(
                metric=f"{name}_drop",
                op="<=",
                limit=evaluation.max_drop,
                value=drop,
                passed=drop is not None and drop <= evaluation.max_drop,
            )
        )
    if evaluation.min_speedup is not None:
        speedup = metrics["speedup"].after if "speedup" in metrics else None
        conditions.append(
            Condition(
                metric="speedup",
                op=">=",
                limit=evaluation.min_speedup,
                value=speedup,
                passed=speedup is not None and speedup >= evaluation.min_speedup,
            )
        )
    return Gate(passed=all(c.passed for c in conditions), conditions=conditions) if conditions else None
