"""A job's report: one HTML file with what was removed, what that cost and brought, and where it all comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from prunectl.comparison import difference, more_is_better
from prunectl.pace import pace
from prunectl.quantities import quantity, relative
from prunectl.recipe import Recipe
from prunectl.reporting import heat_map
from prunectl.reporting.rendering import number, render
from prunectl.schemas import BlockStructure, JobView

_HIDDEN = ("versions", "machine", "recovery", "refit")
"""Of the conditions, what is shown elsewhere or is a table of its own."""

_EXACT = ("parameters", "nonzero_parameters", "macs", "model_bytes")
"""Counted, not measured: the least change is one."""


@dataclass(frozen=True, slots=True)
class Row:
    """A metric in a table. ``change`` starts with ``~`` where it is within 2 standard errors; ``tone`` is ``good`` or
    ``bad`` where it is real, and empty where nobody knows the error.
    """

    name: str
    before: str
    after: str
    change: str
    tone: str
    stderr: str
    n: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Feed-forward neurons of a block: shares of the width, 0 to 1. ``scores`` are quartiles of their importance."""

    name: str
    kept: int
    total: int
    scores: str


def job_report(job: JobView, *, nonce: str | None = None) -> str:
    """The report as HTML. With a ``nonce`` for its style it is a page of the service, which has a way back to the list.

    A job that hasn't succeeded gets one, too: what it is, how far it came and what went wrong.
    """
    structure = job.structure
    blocks = structure.layers if structure else []
    return render(
        "job.html.j2",
        job=job,
        nonce=nonce,
        name=short_name(job.model.name),
        verdict=verdict(job),
        rows=[row_of(name, measure) for name, measure in job.metrics.items()],
        recipe=Recipe.model_validate(job.recipe).document(),
        heat_map=Markup(heat_map.svg(structure, standalone=False)) if structure and blocks else None,
        bars=[_bar(block, blocks) for block in blocks if block.ffn_total],
        slowest=max((stage.seconds for stage in job.stages), default=0.0) or 1.0,
        conditions={name: value for name, value in job.conditions.items() if name not in _HIDDEN},
        details={name: job.conditions[name] for name in ("recovery", "refit") if job.conditions.get(name)},
        versions=job.conditions.get("versions") or {},
        machine=job.conditions.get("machine"),
    )


def short_name(model: str) -> str:
    """A directory by its last part; a name in the zoo or on the Hub as it is."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".")) else model


def verdict(job: JobView) -> tuple[str, str]:
    """(tone, a sentence) on how the job ended: the gate's word where there is one, else size, speed and quality."""
    if job.state != "succeeded":
        return ("bad" if job.state == "failed" else "", f"The job is {job.state}.")
    if job.attention:
        return "", f"This job drew the attention of {job.attention['of']}."
    said = "; ".join(filter(None, (_said(job, name) for name in _SAID)))
    slow = pace(job.metrics, None if job.gate is None else job.gate.model_dump())
    said += f". It is {slow}" if slow else ""
    if job.gate is None:
        return "", f"Pruned, reloaded and measured: {said}."
    met = sum(condition.passed for condition in job.gate.conditions)
    tone = "good" if job.gate.passed else "bad"
    return (
        tone,
        f"The gate is {'met' if job.gate.passed else f'not met ({met} of {len(job.gate.conditions)})'}: {said}.",
    )


_SAID = (
    "parameters",
    "model_bytes",
    "latency_p50_seconds",
    "eval_accuracy",
    "eval_f1",
    "eval_exact_match",
    "eval_mrr_at_10",
    "eval_cosine",
    "eval_loss",
)


def _said(job: JobView, name: str) -> str | None:
    measure = job.metrics.get(name)
    if measure is None or measure.get("after") is None:
        return None
    row = row_of(name, measure)
    label = name.removeprefix("eval_").removesuffix("_seconds").replace("_", " ")
    return f"{label} {row.before} → {row.after}" + (f" ({row.change})" if row.change else "")


def row_of(name: str, measure: Mapping[str, Any]) -> Row:
    """A metric as people read it: quality changes by a difference, cost by a share."""
    before, after = measure.get("before"), measure.get("after")
    found = difference(measure)
    change = tone = ""
    if found is not None and before is not None and after is not None:
        change = f"{found.delta:+.4f}" if name.startswith("eval_") else relative(before, after).strip(" ()")
        if found.within_error:
            change = f"~{change}"
        elif found.delta and (found.within_error is False or name in _EXACT):
            tone = "good" if (found.delta > 0) == more_is_better(name) else "bad"
    return Row(
        name=name,
        before=quantity(name, before),
        after=quantity(name, after),
        change=change,
        tone=tone,
        stderr=number(measure.get("stderr")),
        n=number(measure.get("n")),
    )


def _bar(block: BlockStructure, blocks: list[BlockStructure]) -> Bar:
    scores = " / ".join(number(score) for score in block.ffn_scores or ())
    return Bar(heat_map.label(block, blocks), block.ffn_kept, block.ffn_total, scores)
