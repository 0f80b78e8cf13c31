"""Why a job waits, runs or has ended: one pure function from what is known to reasons."""

from __future__ import annotations

from collections.abc import Sequence

from prunectl.jobs.model import Job, JobState
from prunectl.jobs.records import Standing, Sweep, Worker
from prunectl.jobs.views import iso
from prunectl.standing import Reason


def reasons(
    job: Job, standing: Standing, alive: Sequence[Worker], version: str, waits_for: Sweep | None = None
) -> list[Reason]:
    """What holds ``job`` back, the heaviest first; where it runs; or how it ended. Never empty.

    ``alive`` are all workers that showed themselves lately, ``version`` is this service's,
    ``waits_for`` the sweep of a search's candidates that it waits for.
    """
    if job.waits_for is not None:
        return [_candidates(job.waits_for, waits_for)]
    if job.state is JobState.QUEUED:
        return _waiting(job, standing, [w for w in alive if job.queue in w.queues], alive, version)
    if job.state is JobState.RUNNING:
        return _running(job, alive, standing.now)
    return _ended(job)


def _waiting(
    job: Job, standing: Standing, serving: Sequence[Worker], alive: Sequence[Worker], version: str
) -> list[Reason]:
    found = []
    if not serving:
        elsewhere = sorted({queue for worker in alive for queue in worker.queues})
        found.append(
            Reason(
                code="no_worker",
                message=f"no live worker serves the queue {job.queue}"
                + (f" ({len(alive)} serve {', '.join(elsewhere)})" if elsewhere else ""),
                hint=f"start one: prunectl worker --queues {job.queue}",
                data={"queue": job.queue, "queues_served": elsewhere},
            )
        )
    if standing.owner_limit is not None and standing.owner_running >= standing.owner_limit:
        found.append(
            Reason(
                code="quota",
                message=f"quota: {standing.owner_running} of {standing.owner_limit} jobs of {job.owner} are running",
                hint="it starts when one of them ends; prunectl quotas shows the limits",
                data={"running": standing.owner_running, "max_running": standing.owner_limit},
            )
        )
    if job.not_before > standing.now:
        found.append(_backoff(job, standing.now))
    if standing.ahead:
        found.append(_ahead(job, standing))
    slots = sum(worker.slots for worker in serving)
    if serving and standing.queue_running >= slots:
        found.append(
            Reason(
                code="slots_busy",
                message=f"all {slots} slots of the queue {job.queue} are busy",
                hint="prunectl workers shows with what",
                data={"queue": job.queue, "slots": slots, "running": standing.queue_running},
            )
        )
    if not found:
        message = (
            f"nothing holds it back: the next free slot of the queue {job.queue} takes it,"
            f" or another job of {job.owner} whose model suits that slot better"
        )
        found.append(Reason(code="next", message=message, data={"queue": job.queue, "slots": slots}))
    return [*found, *_skew(serving, version)]


def _candidates(sweep_id: str, sweep: Sweep | None) -> Reason:
    counts = {} if sweep is None else sweep.counts
    total = sum(counts.values())
    left = sum(number for state, number in counts.items() if not state.terminal)
    return Reason(
        code="candidates",
        message=f"waits for {left} of the {total} candidates that its search has queued so far",
        hint=f"prunectl list --sweep {sweep_id} shows them; it goes on by itself when the last has ended",
        data={"sweep_id": sweep_id, **{state.value: number for state, number in counts.items()}},
    )


def _backoff(job: Job, now: float) -> Reason:
    cause = "" if job.failure is None else f" after attempt {job.attempt}: {job.failure.code}: {job.failure.message}"
    return Reason(
        code="backoff",
        message=f"waits until {iso(job.not_before)} ({job.not_before - now:.0f} s more){cause}",
        hint=None if job.failure is None else job.failure.hint,
        data={
            "until": iso(job.not_before),
            "seconds": round(job.not_before - now, 3),
            "failures": job.failures,
            "max_failures": job.max_failures,
            "error_code": None if job.failure is None else job.failure.code,
        },
    )


def _ahead(job: Job, standing: Standing) -> Reason:
    parts = {
        "of a higher priority": standing.ahead_by_priority,
        "of owners with fewer running jobs": standing.ahead_by_fair_share,
        "older": standing.ahead_by_age,
    }
    why = ", ".join(f"{number} {what}" for what, number in parts.items() if number)
    return Reason(
        code="ahead",
        message=f"{standing.ahead} {'job is' if standing.ahead == 1 else 'jobs are'} ahead: {why}",
        data={
            "ahead": standing.ahead,
            "by_priority": standing.ahead_by_priority,
            "by_fair_share": standing.ahead_by_fair_share,
            "by_age": standing.ahead_by_age,
            "priority": job.priority,
        },
    )


def _skew(serving: Sequence[Worker], version: str) -> list[Reason]:
    others = sorted(worker.name for worker in serving if worker.version != version)
    if not others:
        return []
    versions = sorted({worker.version for worker in serving if worker.version != version})
    named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return [
        Reason(
            code="version_skew",
            message=f"version skew: {named} run {', '.join(versions)}, the service {version}",
            hint="upgrade the workers to the service's version",
            data={"workers": others, "versions": versions, "service_version": version},
        )
    ]


def _running(job: Job, alive: Sequence[Worker], now: float) -> list[Reason]:
    where = f"attempt {job.attempt} on {job.worker}" + (f", {job.stage} {job.progress:.0%}" if job.stage else "")
    since = None if job.started_at is None else iso(job.started_at)
    found = [
        Reason(
            code="running",
            message=f"runs: {where}, since {since}",
            hint=f"prunectl logs -f {job.id}",
            data={"worker": job.worker, "stage": job.stage, "progress": job.progress, "attempt": job.attempt},
        )
    ]
    if job.cancel_requested_at is not None:
        asked = iso(job.cancel_requested_at)
        found.append(Reason(code="cancelling", message=f"it is being cancelled, since {asked}", data={"since": asked}))
    if job.worker not in {worker.name for worker in alive}:
        until = None if job.lease_until is None else iso(job.lease_until)
        left = max(0.0, (job.lease_until or now) - now)
        found.append(
            Reason(
                code="worker_silent",
                message=f"the worker {job.worker} gives no sign of life; its lease ends at {until} ({left:.0f} s)",
                hint="then the job is queued again by itself",
                data={"worker": job.worker, "lease_until": until},
            )
        )
    return found


def _ended(job: Job) -> list[Reason]:
    at = None if job.finished_at is None else iso(job.finished_at)
    if job.state is JobState.FAILED and job.failure is not None:
        return [
            Reason(
                code="failed",
                message=f"failed at {at}, attempt {job.attempt}: {job.failure.code}: {job.failure.message}",
                hint=job.failure.hint or f"prunectl logs {job.id}",
                data={
                    "error_code": job.failure.code,
                    "failure_class": job.failure.failure_class.value,
                    "failures": job.failures,
                    "max_failures": job.max_failures,
                },
            )
        ]
    if job.state is JobState.CANCELLED:
        return [Reason(code="cancelled", message=f"cancelled at {at}", hint=f"prunectl retry {job.id}")]
    found = [Reason(code="succeeded", message=f"succeeded at {at}, attempt {job.attempt}")]
    gate = (job.result or {}).get("gate")
    if gate and not gate["passed"]:
        broken = [c for c in gate["conditions"] if not c["passed"]]
        told = ", ".join(f"{c['metric']} {c['value']} is not {c['op']} {c['limit']}" for c in broken)
        found.append(Reason(code="gate_failed", message=f"its gate is not met: {told}", data={"conditions": broken}))
    return found
