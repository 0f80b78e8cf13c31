"""What a job's events say."""

from __future__ import annotations

from typing import Any

from prunectl.jobs.model import Job, JobState


def state_data(job: Job) -> dict[str, Any]:
    """The data of the event that tells of a job's new state, or of the wish to cancel it."""
    data: dict[str, Any] = {"state": job.state.value}
    if job.state is JobState.RUNNING:
        data["worker"] = job.worker
        if job.cancel_requested_at is not None:
            data["cancel_requested"] = True
    if job.waits_for is not None:
        data["waits_for"] = job.waits_for
    if job.failure is not None and job.state in (JobState.QUEUED, JobState.FAILED):
        data["error"] = {"code": job.failure.code, "message": job.failure.message}
    return data
