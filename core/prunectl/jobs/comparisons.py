"""Jobs compared, for those who may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunectl.comparison import (
    COST,
    SHOWN,
    ComparedJob,
    Comparison,
    FrontPoint,
    ParetoFront,
    difference,
    front,
    quality_of,
)
from prunectl.errors import InvalidInput, nearest
from prunectl.jobs.caller import Caller
from prunectl.jobs.model import JobState
from prunectl.jobs.query import MAX_PAGE, METRICS, is_metric
from prunectl.jobs.records import JobQuery
from prunectl.jobs.service import JobService
from prunectl.jobs.sweeps import SweepService
from prunectl.schemas import JobView

MAX_COMPARED = 10_000


class ComparisonService:
    """Reads through the other services, so that what a caller may not see can't be compared either."""

    def __init__(self, jobs: JobService, sweeps: SweepService) -> None:
        self._jobs = jobs
        self._sweeps = sweeps

    def compare(
        self,
        caller: Caller,
        refs: Sequence[str],
        sweep: str | None,
        *,
        metrics: Sequence[str] = (),
        x: str | None = None,
        y: str | None = None,
    ) -> Comparison:
        """These jobs, or those of a sweep, in their order. Raises InvalidInput for an unknown metric, or neither given."""
        if bool(refs) == bool(sweep):
            raise InvalidInput("give either ids of jobs or a sweep", field="ids")
        for name in (*metrics, *filter(None, (x, y))):
            _check_metric(name)
        found = [self._jobs.show(caller, ref) for ref in dict.fromkeys(refs)] if refs else self._of(caller, str(sweep))
        measured = [job for job in found if job.metrics]
        x, y = x or COST, y or quality_of((job.metrics for job in measured), (job.conditions for job in measured))
        on_front = _front_of(measured, x, y)
        shown = list(metrics) or [name for name in SHOWN if any(name in job.metrics for job in measured)]
        return Comparison(
            metrics=shown,
            x=x if on_front else None,
            y=y if on_front else None,
            items=[_compared(job, front=on_front.get(job.id, False)) for job in found],
            notes=_notes(measured),
        )

    def pareto(self, caller: Caller, sweep: str, *, x: str | None = None, y: str | None = None) -> ParetoFront:
        """The front of a sweep's succeeded jobs. Raises InvalidInput for an unknown metric."""
        for name in filter(None, (x, y)):
            _check_metric(name)
        found = self._of(caller, sweep, JobState.SUCCEEDED)
        x, y = x or COST, y or quality_of((job.metrics for job in found), (job.conditions for job in found))
        if y is None:
            y = "eval_accuracy"
        on_front = _front_of(found, x, y)
        points = [
            FrontPoint(id=job.id, recipe=job.recipe, x=_after(job, x), y=_after(job, y), front=on_front[job.id])
            for job in found
            if job.id in on_front
        ]
        return ParetoFront(x=x, y=y, items=sorted(points, key=lambda point: (point.x, point.id)))

    def _of(self, caller: Caller, sweep: str, *states: JobState) -> list[JobView]:
        query = JobQuery(sweep_id=sweep, states=states, sort="created_at", limit=MAX_PAGE)
        found: list[JobView] = []
        while True:
            page = self._sweeps.jobs(caller, query)
            found += page.items
            if page.next_cursor is None or len(found) >= MAX_COMPARED:
                return found
            query = replace(query, cursor=page.next_cursor)


def _check_metric(name: str) -> None:
    if not is_metric(name):
        near = nearest(name, METRICS)
        raise InvalidInput(
            f"{name!r} is not a metric: {', '.join(METRICS)}",
            field="metrics",
            value=name,
            hint=f"did you mean {near}?" if near else None,
        )


def _after(job: JobView, name: str) -> float:
    value = job.metrics[name]["after"]
    assert value is not None
    return float(value)


def _front_of(jobs: Sequence[JobView], x: str, y: str | None) -> dict[str, bool]:
    """By id, of the jobs that have both measurements."""
    if y is None:
        return {}
    both = [job for job in jobs if all(job.metrics.get(name, {}).get("after") is not None for name in (x, y))]
    points = [(_after(job, x), _after(job, y)) for job in both]
    return dict(zip((job.id for job in both), front(points, x, y), strict=True))


def _compared(job: JobView, *, front: bool) -> ComparedJob:
    differences = {name: difference(measure) for name, measure in job.metrics.items()}
    return ComparedJob(
        id=job.id,
        model=job.model,
        recipe=job.recipe,
        recipe_digest=job.recipe_digest,
        evaluation=job.evaluation,
        state=job.state,
        device=job.device,
        gate=job.gate,
        metrics=job.metrics,
        differences={name: found for name, found in differences.items() if found is not None},
        front=front,
    )


def _notes(jobs: Sequence[JobView]) -> list[str]:
    notes = []
    if len({job.device for job in jobs}) > 1:
        notes.append("not all were measured on the same device: latencies and speedups don't compare")
    if len({str(sorted(job.evaluation.items())) for job in jobs}) > 1:
        notes.append("not all were evaluated alike: qualities don't compare")
    return notes
