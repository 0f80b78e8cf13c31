"""Jobs to rows and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunectl.errors import FailureClass
from prunectl.jobs.model import Failure, Job, JobState
from prunectl.jobs.records import NewJob


def row_of(new: NewJob, *, now: float, dedupe: bool) -> dict[str, Any]:
    """A new job's row. ``recipe`` and ``evaluation`` repeat parts of ``spec`` for people who query them."""
    return {
        "id": new.id,
        "owner": new.owner,
        "name": new.name,
        "sweep_id": new.sweep_id,
        "state": JobState.QUEUED.value,
        "queue": new.queue,
        "priority": new.priority,
        "model_name": new.model_name,
        "model_identity": new.model_identity,
        "recipe": new.spec.get("recipe", {}),
        "recipe_digest": new.recipe_digest,
        "evaluation": new.spec.get("evaluation", {}),
        "tags": new.tags,
        "spec": new.spec,
        "digest": new.digest,
        "dedupe_key": new.digest if dedupe else None,
        "max_failures": new.max_failures,
        "timeout_seconds": new.timeout_seconds,
        "not_before": now,
        "created_at": now,
    }


def measures_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table ``metrics`` that a result fills, without the job's id and attempt."""
    parts = ("before", "after", "stderr", "n")
    return [
        {"name": name, **{part: measure.get(part) for part in parts}}
        for name, measure in result.get("metrics", {}).items()
    ]


def job_of(row: Mapping[Any, Any]) -> Job:
    """The job that a whole row of the table ``jobs`` holds."""
    failure = None
    if row["failure_class"] is not None:
        failure = Failure(
            FailureClass(row["failure_class"]), row["error_code"], row["error_message"], row["error_hint"]
        )
    return Job(
        id=row["id"],
        owner=row["owner"],
        state=JobState(row["state"]),
        queue=row["queue"],
        priority=row["priority"],
        spec=row["spec"],
        digest=row["digest"],
        recipe_digest=row["recipe_digest"],
        model_name=row["model_name"],
        model_identity=row["model_identity"],
        created_at=row["created_at"],
        not_before=row["not_before"],
        max_failures=row["max_failures"],
        timeout_seconds=row["timeout_seconds"],
        name=row["name"],
        sweep_id=row["sweep_id"],
        tags=row["tags"],
        attempt=row["attempt"],
        failures=row["failures"],
        lease_token=row["lease_token"],
        lease_until=row["lease_until"],
        worker=row["worker"],
        device=row["device"],
        stage=row["stage"],
        progress=float(row["progress"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        cancel_requested_at=row["cancel_requested_at"],
        failure=failure,
        waits_for=row["waits_for"],
        result=row["result"],
    )
