"""Searches in SQL: a job that waits for the jobs of its sweep, which grows from step to step."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select

from prunectl.db import candidates, transitions
from prunectl.db.job_rows import job_of
from prunectl.db.job_store import SqlJobStore, change
from prunectl.db.session import reading, writing
from prunectl.db.sweep_store import insert_sweep, link_shared
from prunectl.db.tables import jobs, sweeps
from prunectl.jobs.model import Job, JobState, Lease
from prunectl.jobs.records import Added, Candidates, NewJob, NewSweep


class SqlSearchStore:
    """`prunectl.jobs.ports.SearchStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs = SqlJobStore(engine)

    def candidates(self, search_id: str) -> Candidates | None:
        with reading(self._engine) as connection:
            sweep_id = connection.scalar(select(sweeps.c.id).where(sweeps.c.search_id == search_id))
            if sweep_id is None:
                return None
            rows = connection.execute(select(jobs).where(candidates.tried_by(search_id)).order_by(jobs.c.id))
            return Candidates(sweep_id, [job_of(row) for row in rows.mappings()])

    def wait_for(self, lease: Lease, sweep: NewSweep, jobs: Sequence[NewJob]) -> list[Added] | None:
        with writing(self._engine) as connection:
            moved = change(connection, transitions.wait_for(lease, sweep.id))
            if not moved:
                return None
            if moved[0].waits_for is None:
                return []
            # Only the lease's holder comes here: no other can make this search's sweep at the same time.
            if connection.scalar(select(sweeps.c.id).where(sweeps.c.id == sweep.id)) is None:
                insert_sweep(connection, sweep)
            added = self._jobs.add_within(connection, jobs, force=False) if jobs else []
            link_shared(connection, sweep.id, added)
            return added

    def wake(self) -> list[Job]:
        waiting = jobs.c.waits_for.is_not(None)
        with reading(self._engine) as connection:  # most of the time there is none, and nothing needs to be locked
            found = list(connection.scalars(select(jobs.c.id).where(waiting, candidates.all_ended())))
        if not found:
            return []
        with writing(self._engine) as connection:
            which = transitions.locked(jobs.c.id.in_(found), JobState.QUEUED)
            return change(connection, transitions.wake(which & candidates.all_ended()))
