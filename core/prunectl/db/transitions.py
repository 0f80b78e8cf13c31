"""The transitions of `prunectl.jobs.model` as guarded UPDATEs: one statement each, which changes one row or none.

Each function mirrors the pure function of the same name; a test runs every pair of transition and state through both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal, literal_column, null, or_, select
from sqlalchemy.sql import Update

from prunectl.db.tables import db_now, jobs
from prunectl.errors import FailureClass
from prunectl.jobs.model import BACKOFF_SECONDS, NEVER, Failure, JobState, Lease

_NO_LEASE: dict[str, Any] = {"lease_token": None, "lease_until": None}
_IDLE: dict[str, Any] = {**_NO_LEASE, "worker": None, "stage": None, "progress": 0.0}


def in_state(state: JobState) -> ColumnElement[bool]:
    """Spelled out, not as a parameter: only so can SQLite see that a partial index applies."""
    return jobs.c.state == literal_column(f"'{state.value}'")


@dataclass(frozen=True, slots=True)
class LeaseGiven:
    """A lease as expressions, for statements that are built once."""

    job_id: ColumnElement[str]
    attempt: ColumnElement[int]
    token: ColumnElement[str]


def holds_lease(lease: Lease | LeaseGiven) -> ColumnElement[bool]:
    return and_(
        jobs.c.id == lease.job_id,
        in_state(JobState.RUNNING),
        jobs.c.attempt == lease.attempt,
        jobs.c.lease_token == lease.token,
    )


def locked(which: ColumnElement[bool], *states: JobState) -> ColumnElement[bool]:
    """The rows' ids, taken in one order: two of these at once must not wait for each other's rows.

    A subquery that locks is for PostgreSQL; SQLite has one writer and leaves FOR UPDATE out.
    """
    chosen = select(jobs.c.id).where(which, jobs.c.state.in_(states)).order_by(jobs.c.id).with_for_update()
    return jobs.c.id.in_(chosen.scalar_subquery())


def claimable() -> ColumnElement[bool]:
    return and_(in_state(JobState.QUEUED), jobs.c.not_before <= db_now())


def expired() -> ColumnElement[bool]:
    return and_(in_state(JobState.RUNNING), or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < db_now()))


def claim(job_id: Any, *, worker: Any, device: Any, token: Any, lease_seconds: Any) -> Update:
    """Each argument is a value or an expression; no ``device`` means the job's queue, which is named for it."""
    return (
        jobs.update()
        .where(jobs.c.id == job_id, claimable())
        .values(
            state=JobState.RUNNING,
            attempt=jobs.c.attempt + 1,
            lease_token=token,
            lease_until=db_now() + lease_seconds,
            worker=worker,
            device=func.coalesce(device, jobs.c.queue),
            stage=None,
            progress=0.0,
            started_at=db_now(),
            waits_for=None,
            **_failure(None),
        )
    )


def heartbeat(lease: Lease, *, stage: str | None, progress: float, lease_seconds: float) -> Update:
    return (
        jobs.update()
        .where(holds_lease(lease))
        .values(lease_until=db_now() + lease_seconds, stage=stage, progress=progress)
    )


def succeed(lease: Lease, result: dict[str, Any]) -> Update:
    return succeed_with(lease, result=result, **said_by(result))


def said_by(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result has columns of its own."""
    gate = result.get("gate")
    return {"model_digest": result.get("model_digest"), "gate_passed": gate["passed"] if gate else None}


def succeed_with(lease: Lease | LeaseGiven, *, result: Any, model_digest: Any, gate_passed: Any) -> Update:
    """`succeed`; each argument is a value or an expression."""
    return (
        jobs.update()
        .where(holds_lease(lease))
        .values(
            **_NO_LEASE,
            state=JobState.SUCCEEDED,
            finished_at=db_now(),
            progress=1.0,
            result=result,
            model_digest=model_digest,
            gate_passed=gate_passed,
        )
    )


def fail(lease: Lease, failure: Failure) -> Update:
    return _fail(holds_lease(lease), failure.failure_class, _failure(failure))


def expire() -> Update:
    """Every job whose lease ran out, in one statement."""
    message = literal("the worker ") + func.coalesce(jobs.c.worker, "?") + " stopped answering during attempt "
    failure = {
        **_failure(
            Failure(
                FailureClass.LOST,
                "worker_lost",
                "",
                "prunectl logs shows how far it came; prunectl workers shows who is alive",
            )
        ),
        "error_message": message + cast(jobs.c.attempt, Text),
    }
    return _fail(expired(), FailureClass.LOST, failure)


def acknowledge_cancel(lease: Lease) -> Update:
    return (
        jobs.update()
        .where(holds_lease(lease), _cancel_requested())
        .values(**_NO_LEASE, state=JobState.CANCELLED, finished_at=db_now())
    )


def hand_back(lease: Lease) -> Update:
    return _back(lease, not_before=db_now())


def wait_for(lease: Lease, sweep_id: str) -> Update:
    update = _back(lease, not_before=literal(NEVER))
    return update.values(waits_for=case((_cancel_requested(), null()), else_=literal(sweep_id)))


def wake(which: ColumnElement[bool]) -> Update:
    waits = and_(in_state(JobState.QUEUED), jobs.c.waits_for.is_not(None))
    return jobs.update().where(which, waits).values(waits_for=None, not_before=db_now())


def cancel_queued(which: ColumnElement[bool]) -> Update:
    return (
        jobs.update()
        .where(which, in_state(JobState.QUEUED))
        .values(
            **_NO_LEASE,
            state=JobState.CANCELLED,
            finished_at=db_now(),
            cancel_requested_at=db_now(),
            waits_for=None,
        )
    )


def cancel_running(which: ColumnElement[bool]) -> Update:
    return (
        jobs.update()
        .where(which, in_state(JobState.RUNNING), jobs.c.cancel_requested_at.is_(None))
        .values(cancel_requested_at=db_now())
    )


def retry(which: ColumnElement[bool]) -> Update:
    return (
        jobs.update()
        .where(which, jobs.c.state.in_((JobState.FAILED, JobState.CANCELLED)))
        .values(
            **_IDLE,
            **_failure(None),
            state=JobState.QUEUED,
            not_before=db_now(),
            failures=0,
            cancel_requested_at=None,
            started_at=None,
            finished_at=None,
            # Asked for by name: it may stand beside an identical job, as a forced one may.
            dedupe_key=None,
        )
    )


def _failure(failure: Failure | None) -> dict[str, Any]:
    return {
        "failure_class": failure.failure_class.value if failure else None,
        "error_code": failure.code if failure else None,
        "error_message": failure.message if failure else None,
        "error_hint": failure.hint if failure else None,
    }


def _cancel_requested() -> ColumnElement[bool]:
    return jobs.c.cancel_requested_at.is_not(None)


def _back(lease: Lease, *, not_before: ColumnElement[float]) -> Update:
    """running -> queued, or cancelled where that was asked for meanwhile."""
    cancelled = _cancel_requested()
    return (
        jobs.update()
        .where(holds_lease(lease))
        .values(
            **_NO_LEASE,
            state=case((cancelled, JobState.CANCELLED.value), else_=JobState.QUEUED.value),
            not_before=case((cancelled, jobs.c.not_before), else_=not_before),
            finished_at=case((cancelled, db_now()), else_=jobs.c.finished_at),
            worker=case((cancelled, jobs.c.worker), else_=null()),
            stage=case((cancelled, jobs.c.stage), else_=null()),
            progress=case((cancelled, jobs.c.progress), else_=0.0),
        )
    )


def _fail(guard: ColumnElement[bool], failure_class: FailureClass, failure: dict[str, Any]) -> Update:
    """Cancelled where that was asked for; queued again after a back-off while attempts are left; failed otherwise."""
    cancelled = jobs.c.cancel_requested_at.is_not(None)
    steps = BACKOFF_SECONDS[failure_class]
    can_retry: ColumnElement[bool]
    wait: ColumnElement[float]
    if steps is None:
        can_retry, wait = literal(False), literal(0.0)
    else:
        can_retry = jobs.c.failures + 1 <= jobs.c.max_failures
        wait = case(
            *((jobs.c.failures == number, literal(seconds)) for number, seconds in enumerate(steps[:-1])),
            else_=literal(steps[-1]),
        ) if len(steps) > 1 else literal(steps[0])  # fmt: skip
    again = and_(jobs.c.cancel_requested_at.is_(None), can_retry)
    return (
        jobs.update()
        .where(guard)
        .values(
            **_NO_LEASE,
            **{name: case((cancelled, jobs.c[name]), else_=value) for name, value in failure.items()},
            state=case(
                (cancelled, JobState.CANCELLED.value), (again, JobState.QUEUED.value), else_=JobState.FAILED.value
            ),
            failures=case((cancelled, jobs.c.failures), else_=jobs.c.failures + 1),
            not_before=case((again, db_now() + wait), else_=jobs.c.not_before),
            finished_at=case((again, jobs.c.finished_at), else_=db_now()),
            worker=case((again, null()), else_=jobs.c.worker),
            stage=case((again, null()), else_=jobs.c.stage),
            progress=case((again, 0.0), else_=jobs.c.progress),
        )
    )
