"""A sweep's report: quality against cost with the Pareto front, and a table of its jobs; one HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunectl.comparison import ComparedJob, Comparison, more_is_better
from prunectl.quantities import quantity
from prunectl.recipe import Recipe
from prunectl.reporting.job_report import Row, row_of
from prunectl.reporting.rendering import render
from prunectl.sweep import SweepView

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 16, 52
TICKS = 5


@dataclass(frozen=True, slots=True)
class Point:
    """A job on the plane. ``low`` and ``high`` end its error bar, one standard error each way; None: no error is known."""

    x: float
    y: float
    low: float | None
    high: float | None
    front: bool
    base: bool
    said: str


@dataclass(frozen=True, slots=True)
class Scatter:
    x: str
    y: str
    points: list[Point]
    line: str
    """The front, as the points of a polyline; empty for fewer than two."""
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Line:
    """A job's row: its recipe by what differs in the sweep, its metrics in the comparison's order."""

    job: ComparedJob
    recipe: str
    cells: list[Row]


def sweep_report(sweep: SweepView, comparison: Comparison, *, nonce: str | None = None) -> str:
    """The report of a sweep, whose jobs ``comparison`` compares. With a ``nonce`` it is a page of the service."""
    facts = [
        ("sweep", sweep.id),
        ("state", sweep.state),
        ("jobs", f"{sweep.jobs}, {sweep.counts.succeeded} succeeded"),
        ("model", models_of(comparison)),
        ("created", sweep.created_at),
    ]
    return comparison_report(comparison, title=f"Report of sweep {sweep.name or sweep.id}", facts=facts, nonce=nonce)


def models_of(comparison: Comparison) -> str:
    return ", ".join(sorted({job.model.name for job in comparison.items}))


def comparison_report(
    comparison: Comparison, *, title: str, facts: Sequence[tuple[str, str]] = (), nonce: str | None = None
) -> str:
    """The report as HTML. ``facts`` are names and values for its head."""
    jobs = comparison.items
    return render(
        "sweep.html.j2",
        title=title,
        nonce=nonce,
        facts=facts,
        comparison=comparison,
        scatter=scatter(comparison),
        base=next(
            ([row_of(name, job.metrics.get(name, {})) for name in comparison.metrics] for job in jobs if job.metrics),
            None,
        ),
        lines=[
            Line(job, varied(job, jobs), [row_of(name, job.metrics.get(name, {})) for name in comparison.metrics])
            for job in jobs
        ],
        common=", ".join(f"{name}={value}" for name, value in _common(jobs).items()),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
    )


def varied(job: ComparedJob, jobs: Sequence[ComparedJob]) -> str:
    """The job's recipe without what all have in common."""
    common = _common(jobs)
    own = {name: value for name, value in _document(job).items() if name not in common}
    return ", ".join(f"{name}={value}" for name, value in own.items()) or "the same"


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """``heads=0.3, ffn=0.5``: what differs from the defaults, without the seed."""
    document = Recipe.model_validate(recipe).document()
    return ", ".join(f"{name}={value}" for name, value in document.items() if name != "seed")


def scatter(comparison: Comparison) -> Scatter | None:
    """The plane that the front spans; None where the jobs have no two measurements in common."""
    if comparison.x is None or comparison.y is None:
        return None
    x, y = comparison.x, comparison.y
    measured = [job for job in comparison.items if all(_of(job, name, "after") is not None for name in (x, y))]
    if not measured:
        return None
    raw: list[tuple[float, float, float | None, bool, bool, str]] = []
    first = measured[0]
    if (base_x := _of(first, x, "before")) is not None and (base_y := _of(first, y, "before")) is not None:
        raw.append((base_x, base_y, None, False, True, f"unpruned: {quantity(x, base_x)}, {quantity(y, base_y)}"))
    for job in measured:
        at, height = _of(job, x, "after"), _of(job, y, "after")
        assert at is not None and height is not None
        said = f"{job.id} {varied(job, comparison.items)}: {quantity(x, at)}, {quantity(y, height)}"
        raw.append((at, height, _of(job, y, "stderr"), job.front, False, said))
    across = _scale([point[0] for point in raw], LEFT, WIDTH - RIGHT)
    ends = [point[1] + sign * (point[2] or 0.0) for point in raw for sign in (-1, 1)]
    up = _scale(ends, HEIGHT - BOTTOM, TOP)
    points = [
        Point(
            across(at),
            up(height),
            None if error is None else up(height - error),
            None if error is None else up(height + error),
            on_front,
            base,
            said,
        )
        for at, height, error, on_front, base, said in raw
    ]
    front = sorted((point.x, point.y) for point in points if point.front)
    return Scatter(
        x=f"{x} ({'more' if more_is_better(x) else 'less'} is better)",
        y=f"{y} ({'more' if more_is_better(y) else 'less'} is better)",
        points=points,
        line=" ".join(f"{at:.1f},{height:.1f}" for at, height in front) if len(front) > 1 else "",
        x_ticks=[(across(value), quantity(x, value)) for value in ticks([point[0] for point in raw])],
        y_ticks=[(up(value), quantity(y, value)) for value in ticks(ends)],
    )


def ticks(values: Sequence[float]) -> list[float]:
    """Round numbers within the range of ``values``, about `TICKS` of them: steps of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    if high <= low:
        return [low]
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _scale(values: Sequence[float], start: float, end: float) -> Any:
    """A linear scale from the range of ``values``, with a margin of a twentieth, to places from ``start`` to ``end``."""
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    low, high = low - spread / 20, high + spread / 20
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _of(job: ComparedJob, name: str, side: str) -> float | None:
    return job.metrics.get(name, {}).get(side)


def _common(jobs: Sequence[ComparedJob]) -> dict[str, Any]:
    if len(jobs) < 2:
        return {}
    first, *others = (_document(job) for job in jobs)
    return {name: value for name, value in first.items() if all(name in o and o[name] == value for o in others)}


def _document(job: ComparedJob) -> dict[str, Any]:
    return Recipe.model_validate(job.recipe).document()
