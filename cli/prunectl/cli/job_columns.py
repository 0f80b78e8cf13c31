"""The columns of ``list``: what each takes from a job, and how it reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prunectl.cli.output import Column, Item, field
from prunectl.errors import InvalidInput, nearest
from prunectl.quantities import DASH, age, data_size, elapsed, quantity, relative, span

SHORT_ID = 8
# The figure that stands for quality where neither the evaluation nor the task names one: the first that was measured.
QUALITY = ("eval_accuracy", "eval_f1", "eval_mrr_at_10", "eval_cosine", "eval_agreement", "eval_loss")
_SHORT = {
    "eval_accuracy": "acc",
    "eval_f1": "f1",
    "eval_exact_match": "em",
    "eval_perplexity": "ppl",
    "eval_mrr_at_10": "mrr10",
    "eval_recall_at_1": "r1",
    "eval_recall_at_10": "r10",
    "eval_cosine": "cos",
    "eval_agreement": "agree",
    "eval_loss": "loss",
    "eval_overlap_at_10": "nn10",
}
_FIELDS = (
    "queue",
    "priority",
    "owner",
    "attempt",
    "sweep_id",
    "started_at",
    "finished_at",
    "created_at",
    "recipe_digest",
    "progress",
)
_METRICS = (
    *_SHORT, "parameters", "nonzero_parameters", "macs", "model_bytes", "latency_p50_seconds", "latency_p95_seconds",
    "throughput_samples_per_second", "peak_memory_bytes", "speedup",
)  # fmt: skip


def metric(item: Item, name: str, side: str = "after") -> float | None:
    """A metric's value ``before`` or ``after``, or None where it was not measured."""
    found: float | None = item.get("metrics", {}).get(name, {}).get(side)
    return found


def recipe_text(item: Item) -> str:
    """``v l2 h.30 f.25 w.50 even random``: what is removed in the order of the steps, then whatever is not the
    default.
    """
    if item.get("attention"):
        return f"attention of {item['attention']['of'][-SHORT_ID:]}"
    recipe: Mapping[str, Any] = item["recipe"]
    parts = ["v"] if recipe.get("vocab") else []
    if (layers := recipe.get("layers")) is not None:
        parts.append(f"l{layers}" if isinstance(layers, int) else "l" + ",".join(map(str, layers)) + ",")
    if (searched := recipe.get("greedy_layers")) is not None:
        parts.append(f"greedy{searched}")
    if recipe.get("keep_performance") is not None:
        parts.append(f"keep{_fraction(recipe['keep_performance'])}")
    parts += [
        f"{letter}{_fraction(recipe[name])}"
        for name, letter in (("heads", "h"), ("ffn", "f"), ("weights", "w"))
        if recipe.get(name) is not None
    ]
    parts += [
        f"{text}{recipe[name]:g}"
        for name, text in (("target_macs", "macs"), ("target_latency", "ms"), ("speedup", "x"))
        if recipe.get(name) is not None
    ]
    usual = {"layer_choice": "influence", "weight_granularity": "element"}
    parts += [str(recipe[name]) for name, default in usual.items() if recipe.get(name, default) != default]
    if recipe.get("weight_pattern"):
        parts.append(str(recipe["weight_pattern"]))
    if recipe.get("iterations", 1) != 1:
        parts.append(f"x{recipe['iterations']}")
    if recipe.get("even"):
        parts.append("even")
    if recipe.get("scorer", "taylor") not in ("taylor", _usual_scorer(recipe)):
        parts.append(str(recipe["scorer"]))
    parts += [str(recipe[name]) for name in ("export", "quantize") if recipe.get(name) is not None]
    if recipe.get("engine", "native") != "native":
        parts.append(str(recipe["engine"]))
    if recipe.get("recover", "none") != "none":
        parts.append(str(recipe["recover"]))
    return " ".join(parts) or DASH


def _usual_scorer(recipe: Mapping[str, Any]) -> str:
    if any(recipe.get(name) is not None for name in ("target_macs", "target_latency", "speedup")):
        return "fisher"
    return "taylor" if recipe.get("heads") is not None or recipe.get("ffn") is not None else "magnitude"


def state_text(item: Item) -> str:
    if item["state"] == "succeeded" and item.get("gate") and not item["gate"]["passed"]:
        return "gate failed"
    return "cancelling" if item.get("cancel_requested") else str(item["state"])


def stage_text(item: Item) -> str:
    """``evaluate 61% ~2m`` while it runs; stage and error code once it failed."""
    stage = item.get("stage") or DASH
    if item["state"] == "running":
        left = remaining_seconds(item)
        return f"{stage} {item['progress']:.0%}" + (f" ~{span(left)}" if left is not None else "")
    if item.get("error"):
        return f"{stage} {item['error']['code']}"
    return DASH


def remaining_seconds(item: Item) -> float | None:
    """An estimate from the progress so far; None while it says too little."""
    progress, started = item.get("progress") or 0.0, item.get("started_at")
    if item["state"] != "running" or started is None or progress < 0.05:
        return None
    return max(0.0, elapsed(started) * (1 - progress) / progress)


def quality_name(item: Item) -> str | None:
    named = item.get("evaluation", {}).get("metric")
    primary = item.get("conditions", {}).get("primary_metric")
    candidates = (*((named, f"eval_{named}") if named else ()), *((primary,) if primary else ()), *QUALITY)
    return next((name for name in candidates if metric(item, name) is not None), None)


def quality_text(item: Item) -> str:
    name = quality_name(item)
    if name is None:
        return DASH
    after, before = metric(item, name), metric(item, name, "before")
    text = f"{_SHORT.get(name, name)} {after:.3f}"
    if before is None or after is None:
        return text
    return f"{text} ({'~' if no_real_difference(item, name) else ''}{after - before:+.3f})"


def no_real_difference(item: Item, name: str) -> bool:
    """Whether before and after are within 1.96 standard errors of their paired difference: marked by ``~``."""
    after, before, error = (metric(item, name, side) for side in ("after", "before", "difference_stderr"))
    return after is not None and before is not None and error is not None and abs(after - before) <= 1.96 * error


def _size_text(item: Item) -> str:
    after = metric(item, "model_bytes")
    return DASH if after is None else data_size(after) + relative(metric(item, "model_bytes", "before"), after)


def _measured(name: str, header: str) -> Column:
    def text(item: Item) -> str:
        after = metric(item, name)
        return DASH if after is None else quantity(name, after) + relative(metric(item, name, "before"), after)

    return Column(name, header, text, lambda item: metric(item, name))


def _id_text(item: Item) -> str:
    # Any suffix of four characters or more names a job, so a terminal gets the short form and a pipe the whole id.
    return str(item["id"])[-SHORT_ID:] if sys.stdout.isatty() else str(item["id"])


def _value_of(path: str) -> Column:
    """``eval_accuracy``, ``eval_accuracy.before`` or ``eval_accuracy.delta``."""
    name, _, side = path.partition(".")

    def raw(item: Item) -> Any:
        if side == "delta":
            before, after = metric(item, name, "before"), metric(item, name)
            return None if before is None or after is None else after - before
        return metric(item, name, side or "after")

    def text(item: Item) -> str:
        value = raw(item)
        return DASH if value is None else quantity(name, value)

    return Column(path, path.upper(), text, raw)


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("id", "ID", _id_text, lambda item: item["id"]),
        Column("model", "MODEL", lambda item: item["model"]["name"], lambda item: item["model"]["name"]),
        Column("recipe", "RECIPE", recipe_text, recipe_text),
        Column("state", "STATE", state_text, lambda item: item["state"]),
        Column("stage", "STAGE", stage_text, lambda item: item.get("stage")),
        Column("quality", "QUALITY(Δ)", quality_text, lambda item: metric(item, quality_name(item) or "")),
        _measured("speedup", "SPEEDUP"),
        Column("size", "SIZE(Δ)", _size_text, lambda item: metric(item, "model_bytes")),
        Column("age", "AGE", lambda item: age(item["created_at"]), lambda item: elapsed(item["created_at"])),
        field("name"),
        _measured("parameters", "PARAMS(Δ)"),
        _measured("latency_p50_seconds", "P50(Δ)"),
        Column("device", "DEVICE", lambda item: item.get("device") or DASH, lambda item: item.get("device")),
        field("worker"),
        field("attempt"),
        Column("duration", "DURATION", lambda item: _duration(item), lambda item: _duration_seconds(item)),
        Column("tags", "TAGS", lambda item: _tags(item) or DASH, lambda item: _tags(item)),
        Column("error", "ERROR", lambda item: _error_code(item) or DASH, lambda item: _error_code(item)),
        Column("gate", "GATE", lambda item: _gate(item) or DASH, lambda item: _gate(item)),
    )
}  # fmt: skip
DEFAULT = ("id", "model", "recipe", "state", "stage", "quality", "speedup", "size", "age")
WIDE = ("parameters", "latency_p50_seconds", "device", "worker", "attempt", "duration", "name", "tags", "gate")


def columns_of(names: Sequence[str], items: Iterable[Item] = ()) -> list[Column]:
    """Columns by name; raises InvalidInput for one that is neither a column, a field nor a metric."""
    measured = {name for item in items for name in item.get("metrics", {})}
    known = [*COLUMNS, *_FIELDS, *sorted({*_METRICS, *measured})]
    found = []
    for name in names:
        if name in COLUMNS:
            found.append(COLUMNS[name])
        elif name in _FIELDS:
            found.append(field(name))
        elif name.partition(".")[0] in known and name.partition(".")[2] in (
            "",
            "before",
            "after",
            "delta",
            "stderr",
            "difference_stderr",
            "n",
        ):
            found.append(_value_of(name))
        else:
            near = nearest(name, known)
            raise InvalidInput(
                f"columns: {name!r} is not a column; allowed is {', '.join(known)}, or METRIC.before, METRIC.delta",
                field="columns",
                value=name,
                hint=f"did you mean {near}?" if near else None,
            )
    return found


def _fraction(value: Any) -> str:
    if isinstance(value, dict):  # one for each kind of attention
        return "+".join(f"{kind[:3]}{_fraction(share)}" for kind, share in value.items())
    return f"{value:.2f}".removeprefix("0") if round(value, 2) == value else f"{value:g}".removeprefix("0")


def _duration_seconds(item: Item) -> float | None:
    return elapsed(item["started_at"], item.get("finished_at")) if item.get("started_at") else None


def _duration(item: Item) -> str:
    value = _duration_seconds(item)
    return DASH if value is None else span(max(0.0, value))


def _tags(item: Item) -> str:
    return ",".join(f"{key}={value}" for key, value in item.get("tags", {}).items())


def _error_code(item: Item) -> str | None:
    return (item.get("error") or {}).get("code")


def _gate(item: Item) -> str | None:
    gate = item.get("gate")
    return None if not gate else ("passed" if gate["passed"] else "failed")
