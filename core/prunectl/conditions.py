"""The metrics that have a name, and conditions on them such as ``eval_f1>=0.9 and speedup>=1.3``. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

METRICS = (
    "parameters",
    "nonzero_parameters",
    "macs",
    "model_bytes",
    "latency_p50_seconds",
    "latency_p95_seconds",
    "throughput_samples_per_second",
    "peak_memory_bytes",
    "speedup",
    "eval_loss",
    "eval_accuracy",
    "eval_f1",
    "eval_exact_match",
    "eval_perplexity",
    "eval_mrr_at_10",
    "eval_recall_at_1",
    "eval_recall_at_10",
    "eval_cosine",
    "eval_overlap_at_10",
    "eval_agreement",
)
QUALITY_METRICS = tuple(name for name in METRICS if name.startswith("eval_"))
DROP = "_drop"
"""``eval_f1_drop`` is by how much eval_f1 got worse, in its own unit."""
_METRIC_NAME = re.compile(
    rf"^(onnx_(int8_)?(bytes|(max|mean)_abs_error)|(onnx_(int8_)?)?(eval_[a-z0-9_]{{1,60}}|({'|'.join(METRICS)})(_[a-z0-9_]{{1,40}})?))$"
)
_AND = re.compile(r"\s+and\s+|\s*,\s*", re.IGNORECASE)
_CONDITION = re.compile(
    r"^\s*([a-z_][a-z0-9_]{0,62})\s*(<=|>=|==|!=|<|>|=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*$"
)
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
"""Of numbers and of SQL expressions alike."""
CONFIDENCE = 0.95
Z = NormalDist().inv_cdf(CONFIDENCE)
"""Standard errors between an estimate and its one-sided confidence bound."""
BOUNDED = ("<=", ">=", "<", ">")
"""What an estimate can be held against by its confidence bound; of two estimates none is exactly equal."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``name op limit``; ``op`` is one of `COMPARE`."""

    name: str
    op: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name}{self.op}{self.limit:g}"


def is_metric(name: str) -> bool:
    """Whether ``name`` is, or by its beginning can be, the name of a metric (``latency_p50_seconds_batch_16`` is)."""
    return _METRIC_NAME.match(name) is not None


def parse(text: str) -> tuple[Wanted, ...]:
    """Conditions joined by ``and``. Raises ValueError quoting the part that is none."""
    found = []
    for part in _AND.split(text.strip()):
        match = _CONDITION.match(part)
        if match is None:
            raise ValueError(f"{part!r} is not a condition: write NAME OP NUMBER, such as eval_accuracy>0.9")
        found.append(Wanted(match[1], {"==": "="}.get(match[2], match[2]), float(match[3])))
    return tuple(found)


def parse_gate(text: str) -> tuple[Wanted, ...]:
    """`parse`, of metrics and their drops alone, by the operators that have a confidence bound; else ValueError."""
    found = parse(text)
    for wanted in found:
        if not is_metric(wanted.name.removesuffix(DROP)):
            raise ValueError(f"{wanted.name!r} is not a metric: one of {', '.join(METRICS)}, or its {DROP}")
        if wanted.op not in BOUNDED:
            raise ValueError(f"{wanted}: a gate compares by {' '.join(BOUNDED)}")
    return found
