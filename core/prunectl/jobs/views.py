"""A job as the outside sees it: `Job` to `JobView`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prunectl.attention import AttentionJob, read_spec
from prunectl.jobs.model import BACKOFF_SECONDS, Job
from prunectl.jobs.model import JobState as S
from prunectl.jobs.records import Worker
from prunectl.recipe import Recipe
from prunectl.schemas import ErrorView, JobView, Measure, ModelRef, Result, WorkerView


def iso(seconds: float) -> str:
    """ISO-8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _iso_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)


def full_recipe(recipe: Recipe) -> dict[str, object]:
    """Every field that is set, defaults included: what was done, spelt out."""
    return recipe.model_dump(mode="json", exclude_none=True)


def view_of(job: Job, *, structure: bool = True) -> JobView:
    """The job as JSON; ``structure=False`` for list items."""
    body = read_spec(job.spec)
    result = None if job.result is None else Result.model_validate(job.result)
    failure = job.failure
    return JobView(
        id=job.id,
        state=job.state.value,
        stage=job.stage,
        progress=round(job.progress, 4),
        name=job.name,
        sweep_id=job.sweep_id,
        owner=job.owner,
        tags=job.tags,
        model=ModelRef(name=job.model_name, digest=result.model_digest if result else None),
        recipe=full_recipe(body.recipe),
        recipe_digest=job.recipe_digest,
        attention={"of": body.attention.job, **body.attention.model_dump(mode="json", include={"text", "layers"})}
        if isinstance(body, AttentionJob)
        else None,
        evaluation=body.evaluation.model_dump(mode="json", exclude_none=True),
        queue=job.queue,
        priority=job.priority,
        attempt=job.attempt,
        created_at=iso(job.created_at),
        started_at=_iso_or_none(job.started_at),
        finished_at=_iso_or_none(job.finished_at),
        worker=job.worker,
        device=job.device or job.queue,
        cancel_requested=job.cancel_requested_at is not None and job.state is S.RUNNING,
        error=None
        if failure is None or job.state in (S.SUCCEEDED, S.CANCELLED)
        else ErrorView(
            code=failure.code,
            message=failure.message,
            hint=failure.hint,
            retryable=BACKOFF_SECONDS[failure.failure_class] is not None,
        ),
        waits_for=job.waits_for,
        structure=result.structure if result and structure else None,
        **(result_fields(result) if result else {}),
    )


def result_fields(result: Result) -> dict[str, Any]:
    """What a `JobView` repeats of a result; its structure, which lists leave out, apart."""
    return {
        "gate": result.gate,
        "ledger": result.ledger,
        "selection": _shown(result.selection),
        "search": result.search,
        "labels": result.labels,
        "metrics": _shown(result.metrics),
        "stages": result.stages,
        "artifacts": result.artifacts,
        "conditions": result.conditions,
    }


def _shown(measures: Mapping[str, Measure]) -> dict[str, dict[str, float | int | None]]:
    return {name: measure.model_dump(exclude_none=True) for name, measure in measures.items()}


def worker_view(worker: Worker, *, alive: bool, running: list[str]) -> WorkerView:
    return WorkerView(
        name=worker.name,
        host=worker.host,
        pid=worker.pid,
        queues=list(worker.queues),
        slots=worker.slots,
        device=worker.device,
        version=worker.version,
        started_at=iso(worker.started_at),
        seen_at=iso(worker.seen_at),
        alive=alive,
        running=running,
    )
