"""The job and its life: frozen values and pure transitions. No I/O; the database clock is passed in as ``now``.

States: queued -> running -> succeeded | failed | cancelled; running -> queued on a hand-back, a retry or a dead lease;
failed | cancelled -> queued by an explicit retry. Each write that a worker makes is guarded by its lease token, and each
transition has exactly one guard here, which the stores repeat in their UPDATE's WHERE clause.

Times are seconds since the epoch on the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from prunectl.errors import FailureClass


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended without success."""

    failure_class: FailureClass
    code: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job. ``token`` is fresh at each claim; ``attempt`` is the fencing number and only ever grows."""

    job_id: str
    attempt: int
    token: str


@dataclass(frozen=True, slots=True)
class Job:
    """One model x one recipe x one evaluation: a row of the queue. ``spec`` is a `prunectl.schemas.JobCreate` as JSON."""

    id: str
    owner: str
    state: JobState
    queue: str
    priority: int
    spec: dict[str, Any]
    digest: str
    recipe_digest: str
    model_name: str
    model_identity: str
    created_at: float
    not_before: float
    max_failures: int
    timeout_seconds: float | None = None
    name: str | None = None
    sweep_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    attempt: int = 0
    failures: int = 0
    lease_token: str | None = None
    lease_until: float | None = None
    worker: str | None = None
    device: str | None = None
    stage: str | None = None
    progress: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    cancel_requested_at: float | None = None
    failure: Failure | None = None
    waits_for: str | None = None
    """A queued search's sweep of candidates, of which some haven't ended: it can't be claimed before they have."""
    result: dict[str, Any] | None = None
    """A `prunectl.schemas.Result` as JSON, of the attempt that succeeded."""

    @property
    def lease(self) -> Lease:
        if self.lease_token is None:
            raise ValueError(f"job {self.id} is {self.state}: it has no lease")
        return Lease(self.id, self.attempt, self.lease_token)


class TransitionRefused(Exception):
    """The guard did not hold: someone else moved the job first. The caller writes nothing and stops."""


NEVER = 253_402_300_799.0
"""The end of the year 9999: ``not_before`` of a job that waits for others, so that a claim needs no condition more."""

# How long a failed attempt waits before it is tried again, by class; None: it is final at once.
# ``lost``: 0, 5, 10, then at most 60 s. The last number repeats.
BACKOFF_SECONDS: dict[FailureClass, tuple[float, ...] | None] = {
    FailureClass.USER_ERROR: None,
    FailureClass.TIMEOUT: None,
    FailureClass.OOM_GPU: (0.0,),
    FailureClass.OOM_HOST: (30.0, 60.0),
    FailureClass.KILLED: (0.0, 5.0, 10.0, 20.0, 40.0, 60.0),
    FailureClass.LOST: (0.0, 5.0, 10.0, 20.0, 40.0, 60.0),
    FailureClass.TRANSIENT_IO: (5.0, 10.0, 30.0, 60.0, 300.0, 600.0),
    FailureClass.DISK_FULL: (60.0, 600.0),
}


def backoff_seconds(failure_class: FailureClass, failures_before: int) -> float | None:
    """Seconds to wait before the next attempt, given how many failed before this one; None where a retry can't help."""
    steps = BACKOFF_SECONDS[failure_class]
    return None if steps is None else steps[min(failures_before, len(steps) - 1)]


def _guard(holds: bool, job: Job, what: str) -> None:
    if not holds:
        raise TransitionRefused(f"{what}: job {job.id} is {job.state}, attempt {job.attempt}")


def _holds_lease(job: Job, lease: Lease) -> bool:
    return (
        job.state is JobState.RUNNING
        and job.id == lease.job_id
        and job.attempt == lease.attempt
        and job.lease_token == lease.token
    )


def claimable(job: Job, now: float) -> bool:
    return job.state is JobState.QUEUED and job.not_before <= now


def claim(job: Job, *, worker: str, device: str, token: str, now: float, lease_seconds: float) -> Job:
    """queued -> running with a fresh lease; ``attempt`` grows."""
    _guard(claimable(job, now), job, "claim")
    return replace(
        job,
        state=JobState.RUNNING,
        attempt=job.attempt + 1,
        lease_token=token,
        lease_until=now + lease_seconds,
        worker=worker,
        device=device,
        stage=None,
        progress=0.0,
        started_at=now,
        failure=None,
        waits_for=None,  # an older service that retries a waiting search knows nothing of it
    )


def heartbeat(job: Job, lease: Lease, *, stage: str | None, progress: float, now: float, lease_seconds: float) -> Job:
    """running -> running with a later end of lease. The caller reads ``cancel_requested_at`` from what comes back."""
    _guard(_holds_lease(job, lease), job, "heartbeat")
    return replace(job, lease_until=now + lease_seconds, stage=stage, progress=progress)


def succeed(job: Job, lease: Lease, result: dict[str, Any], *, now: float) -> Job:
    """running -> succeeded. A result that is whole wins over a cancellation that came too late."""
    _guard(_holds_lease(job, lease), job, "succeed")
    return replace(_ended(job, JobState.SUCCEEDED, now), result=result, progress=1.0)


def fail(job: Job, lease: Lease, failure: Failure, *, now: float) -> Job:
    """running -> queued (after a back-off), failed (no attempt left, or a retry can't help) or cancelled (it was asked for)."""
    _guard(_holds_lease(job, lease), job, "fail")
    return _failed(job, failure, now)


def acknowledge_cancel(job: Job, lease: Lease, *, now: float) -> Job:
    """running -> cancelled, by the worker that was told so by a heartbeat."""
    _guard(_holds_lease(job, lease) and job.cancel_requested_at is not None, job, "acknowledge_cancel")
    return _ended(job, JobState.CANCELLED, now)


def hand_back(job: Job, lease: Lease, *, now: float) -> Job:
    """running -> queued because the worker stops: not the job's fault, so no failure is counted."""
    _guard(_holds_lease(job, lease), job, "hand_back")
    if job.cancel_requested_at is not None:
        return _ended(job, JobState.CANCELLED, now)
    return _requeued(job, not_before=now)


def wait_for(job: Job, lease: Lease, sweep_id: str, *, now: float) -> Job:
    """running -> queued until the jobs of a sweep have ended: a search and its candidates. No failure is counted."""
    _guard(_holds_lease(job, lease), job, "wait_for")
    if job.cancel_requested_at is not None:
        return _ended(job, JobState.CANCELLED, now)
    return replace(_requeued(job, not_before=NEVER), waits_for=sweep_id)


def wake(job: Job, *, now: float) -> Job:
    """queued -> queued, and claimable: what the job waits for has ended."""
    _guard(job.state is JobState.QUEUED and job.waits_for is not None, job, "wake")
    return replace(job, waits_for=None, not_before=now)


def cancel(job: Job, *, now: float) -> Job:
    """queued -> cancelled at once; running -> running with the wish noted; a second wish changes nothing."""
    _guard(not job.state.terminal, job, "cancel")
    if job.state is JobState.QUEUED:
        return replace(_ended(job, JobState.CANCELLED, now), cancel_requested_at=now)
    return job if job.cancel_requested_at is not None else replace(job, cancel_requested_at=now)


def expired(job: Job, now: float) -> bool:
    return job.state is JobState.RUNNING and (job.lease_until is None or job.lease_until < now)


def expire(job: Job, *, now: float) -> Job:
    """running -> queued, failed or cancelled, for a job whose lease ran out: its worker is dead or cut off."""
    _guard(expired(job, now), job, "expire")
    message = f"the worker {job.worker or '?'} stopped answering during attempt {job.attempt}"
    hint = "prunectl logs shows how far it came; prunectl workers shows who is alive"
    return _failed(job, Failure(FailureClass.LOST, "worker_lost", message, hint), now)


def retry(job: Job, *, now: float) -> Job:
    """failed | cancelled -> queued on request, with its failures forgotten; ``attempt`` goes on counting."""
    _guard(job.state in (JobState.FAILED, JobState.CANCELLED), job, "retry")
    return replace(
        _requeued(job, not_before=now),
        failures=0,
        failure=None,
        cancel_requested_at=None,
        started_at=None,
        finished_at=None,
    )


def _ended(job: Job, state: JobState, now: float) -> Job:
    return replace(job, state=state, lease_token=None, lease_until=None, finished_at=now, waits_for=None)


def _requeued(job: Job, *, not_before: float) -> Job:
    return replace(
        job,
        state=JobState.QUEUED,
        lease_token=None,
        lease_until=None,
        worker=None,
        stage=None,
        progress=0.0,
        not_before=not_before,
    )


def _failed(job: Job, failure: Failure, now: float) -> Job:
    if job.cancel_requested_at is not None:
        return _ended(job, JobState.CANCELLED, now)
    failures = job.failures + 1
    wait = backoff_seconds(failure.failure_class, job.failures)
    if wait is None or failures > job.max_failures:
        return replace(_ended(job, JobState.FAILED, now), failures=failures, failure=failure)
    return replace(_requeued(job, not_before=now + wait), failures=failures, failure=failure)
