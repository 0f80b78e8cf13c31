"""What to say to a user whose wish a job's state does not allow."""

from __future__ import annotations

from prunectl.errors import Conflict
from prunectl.jobs.model import Job


def already_ended(job: Job) -> Conflict:
    return Conflict(f"job {job.id} has ended already: it is {job.state}", value=job.id)


def cannot_retry(job: Job) -> Conflict:
    return Conflict(f"job {job.id} is {job.state}: only a failed or cancelled job can be retried", value=job.id)


def still_active(job: Job) -> Conflict:
    return Conflict(f"job {job.id} is {job.state}", hint=f"first: prunectl cancel {job.id}", value=job.id)
