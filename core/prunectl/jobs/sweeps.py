"""What may be done to sweeps, and by whom: their jobs are queued, cancelled and retried together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prunectl.errors import Conflict, InvalidInput, NotFound
from prunectl.jobs.caller import Caller
from prunectl.jobs.idempotency import once, request_key
from prunectl.jobs.intake import Admitted, Intake, new_id, new_job_of
from prunectl.jobs.model import Job, JobState
from prunectl.jobs.ports import IdempotencyStore, SweepStore
from prunectl.jobs.records import JobQuery, NewSweep, RequestKey, Sweep
from prunectl.jobs.ringing import Ringer
from prunectl.jobs.secrets import SecretKeeper, kept_while_queueing
from prunectl.jobs.service import MIN_ABBREVIATION, JobService
from prunectl.jobs.views import iso
from prunectl.schemas import JobPage, job_digest
from prunectl.settings import Settings
from prunectl.sweep import (
    SweepChange,
    SweepCounts,
    SweepCreate,
    SweepPage,
    SweepPlan,
    SweepView,
    bodies,
    size_of,
    state_of,
)

_CURSOR = re.compile(r"[0-9a-z]{26}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SubmittedSweep:
    sweep: SweepView
    created: bool
    """False: an earlier request with the same Idempotency-Key made it."""


class SweepService:
    """Submits, shows and steers sweeps; whatever concerns a single job is `JobService`'s."""

    def __init__(
        self,
        *,
        sweeps: SweepStore,
        jobs: JobService,
        intake: Intake,
        idempotency: IdempotencyStore,
        ringer: Ringer,
        secrets: SecretKeeper,
        settings: Settings,
    ) -> None:
        self._sweeps = sweeps
        self._jobs = jobs
        self._intake = intake
        self._idempotency = idempotency
        self._ringer = ringer
        self._secrets = secrets
        self._settings = settings

    def submit(
        self, caller: Caller, create: SweepCreate, *, idempotency_key: str | None = None, hub_token: str | None = None
    ) -> SubmittedSweep:
        """Queue every job of the grid in one transaction, or none. Identical jobs that exist are shared, not repeated.

        Raises InvalidInput for a grid that is too large or a job that is not valid; nothing was queued then.
        """
        caller.require("submit")
        request = request_key(caller.owner, idempotency_key, f"sweep {create.model_dump_json()}")
        return once(
            self._idempotency,
            request,
            lambda: self._queue(caller, create, hub_token, request),
            lambda sweep_id: SubmittedSweep(view_of_sweep(self._sweep(caller, sweep_id)), created=False),
        )

    def _queue(
        self, caller: Caller, create: SweepCreate, hub_token: str | None, request: RequestKey | None
    ) -> SubmittedSweep:
        admitted = self._admit(create, hub_token)
        sweep = NewSweep(id=new_id(), owner=caller.owner, spec=_spec(create), name=create.name)
        # In the order of the grid: jobs of one moment are claimed and listed by id.
        ids = sorted(new_id() for _ in admitted)
        new = [
            new_job_of(caller, item, job_id=job_id, sweep_id=sweep.id)
            for job_id, item in zip(ids, admitted, strict=True)
        ]
        token = hub_token if self._settings.embedded else None
        with kept_while_queueing(self._secrets, token, ids) as created:
            added = self._sweeps.add_sweep(sweep, new, force=create.force, request=request)
            created += [item.job.id for item in added if item.created]
        self._ring(item.job for item in added if item.created)
        return SubmittedSweep(view_of_sweep(self._sweep(caller, sweep.id)), created=True)

    def plan(self, caller: Caller, create: SweepCreate, *, hub_token: str | None = None) -> SweepPlan:
        """What `submit` would queue. Raises as it does."""
        caller.require("read")
        admitted = self._admit(create, hub_token)
        digests = [job_digest(caller.owner, item.located.identity, item.body) for item in admitted]
        return SweepPlan(
            jobs=len(set(digests)),
            identical=self._sweeps.count_identical(caller.owner, digests),
            queues=dict(Counter(item.queue for item in admitted)),
            base=create.base,
            grid=create.grid,
            notes=list(dict.fromkeys(note for item in admitted for note in item.notes)),
        )

    def _admit(self, create: SweepCreate, hub_token: str | None) -> Sequence[Admitted]:
        size, limit = size_of(create.grid), self._settings.max_sweep_jobs
        if size > limit:
            raise InvalidInput(
                f"grid: a sweep may have at most {limit} jobs, this one has {size}",
                field="grid",
                value=size,
                hint="PRUNECTL_MAX_SWEEP_JOBS of the service sets the limit",
            )
        return self._intake.admit_all(bodies(create), hub_token=hub_token)

    def list(self, caller: Caller, *, limit: int, cursor: str | None) -> SweepPage:
        """The newest first; ``cursor`` is the ``next_cursor`` of the page before."""
        caller.require("read")
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise InvalidInput(
                "the cursor is not a cursor of this service",
                hint="start again without a cursor",
                field="cursor",
                value=cursor,
            )
        rows = self._sweeps.sweeps(owner=caller.sees, limit=limit + 1, after=cursor)
        more = len(rows) > limit
        items = [view_of_sweep(sweep) for sweep in rows[:limit]]
        return SweepPage(items=items, next_cursor=items[-1].id if more else None)

    def show(self, caller: Caller, ref: str) -> SweepView:
        caller.require("read")
        return view_of_sweep(self._sweep(caller, ref))

    def jobs(self, caller: Caller, query: JobQuery) -> JobPage:
        """`JobService.list`, with the sweep's id given in full or abbreviated. Raises NotFound where there is none."""
        caller.require("read")
        if query.sweep_id is not None:
            query = replace(query, sweep_id=self._sweep(caller, query.sweep_id).id)
        return self._jobs.list(caller, query)

    def cancel(self, caller: Caller, ref: str) -> SweepChange:
        """Cancel what has not ended of the jobs that the sweep queued. A second time changes nothing.

        Jobs that it shares with earlier submissions go on.
        """
        caller.require("submit")
        sweep_id = self._sweep(caller, ref).id
        return self._changed(caller, sweep_id, self._sweeps.cancel_sweep(sweep_id))

    def retry(self, caller: Caller, ref: str, *, failed_only: bool) -> SweepChange:
        """Queue its failed jobs again, and its cancelled ones unless ``failed_only``. A second time changes nothing."""
        caller.require("submit")
        sweep_id = self._sweep(caller, ref).id
        states = (JobState.FAILED,) if failed_only else (JobState.FAILED, JobState.CANCELLED)
        changed = self._sweeps.retry_sweep(sweep_id, states)
        self._ring(changed)
        return self._changed(caller, sweep_id, changed)

    def _changed(self, caller: Caller, sweep_id: str, changed: Sequence[Job]) -> SweepChange:
        view = view_of_sweep(self._sweep(caller, sweep_id))
        return SweepChange(**view.model_dump(), changed=len(changed))

    def _ring(self, jobs: Iterable[Job]) -> None:
        for queue, number in Counter(job.queue for job in jobs).items():
            self._ringer.ring(queue, number)

    def _sweep(self, caller: Caller, ref: str) -> Sweep:
        """The sweep that ``ref`` names, whole or abbreviated. Another owner's is as if it were not there."""
        ref = ref.strip().lower()
        hint = "prunectl sweeps lists them"
        if len(ref) < MIN_ABBREVIATION or not ref.isalnum():
            raise NotFound(
                f"no sweep {ref!r}: an id, or at least {MIN_ABBREVIATION} characters of its start or end", hint=hint
            )
        ids = self._sweeps.find_sweeps(ref, owner=caller.sees)
        if len(ids) > 1 and ref not in ids:
            raise Conflict(f"{ref!r} fits more than one sweep: " + ", ".join(ids), hint="give more characters")
        sweep = self._sweeps.sweep(ref if ref in ids else ids[0]) if ids else None
        if sweep is None or caller.sees not in (None, sweep.owner):
            raise NotFound(f"no sweep {ref!r}", hint=hint)
        return sweep


def _spec(create: SweepCreate) -> dict[str, Any]:
    return {"base": create.base, "grid": create.grid}


def view_of_sweep(sweep: Sweep) -> SweepView:
    """The sweep as JSON; its state and its times are derived from its jobs'."""
    counts = SweepCounts(**{state.value: number for state, number in sweep.counts.items()})
    state = state_of(counts)
    done = counts.ended + sweep.progress_sum
    return SweepView(
        id=sweep.id,
        state=state,
        name=sweep.name,
        owner=sweep.owner,
        jobs=counts.total,
        shared=sweep.shared,
        counts=counts,
        gates_failed=sweep.gates_failed,
        progress=round(done / counts.total, 4) if counts.total else 1.0,
        created_at=iso(sweep.created_at),
        started_at=None if sweep.started_at is None else iso(sweep.started_at),
        finished_at=None if sweep.finished_at is None or state in ("queued", "running") else iso(sweep.finished_at),
        base=sweep.spec["base"],
        grid=sweep.spec["grid"],
        search_id=sweep.search_id,
    )
