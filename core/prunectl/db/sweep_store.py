"""Sweeps in SQL: a parent's row, its children's `sweep_id`, and links to jobs that were there before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, and_, func, insert, literal_column, or_, select, union_all

from prunectl.db import transitions
from prunectl.db.idempotency_store import answering
from prunectl.db.job_listing import ids_of_sweep
from prunectl.db.job_store import SqlJobStore, cancel_candidates, change
from prunectl.db.session import reading, writing
from prunectl.db.tables import LIVE, db_now, jobs, sweep_links, sweeps
from prunectl.db.transitions import locked
from prunectl.jobs.model import Job, JobState
from prunectl.jobs.records import Added, NewJob, NewSweep, RequestKey, Sweep

_CHUNK = 500  # values in one IN (…)


class SqlSweepStore:
    """`prunectl.jobs.ports.SweepStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs = SqlJobStore(engine)

    def add_sweep(
        self, sweep: NewSweep, jobs: Sequence[NewJob], *, force: bool = False, request: RequestKey | None = None
    ) -> list[Added]:
        with writing(self._engine) as connection, answering(connection, request) as made:
            made.append(sweep.id)
            insert_sweep(connection, sweep)
            added = self._jobs.add_within(connection, jobs, force=force)
            link_shared(connection, sweep.id, added)
            return added

    def sweep(self, sweep_id: str) -> Sweep | None:
        with reading(self._engine) as connection:
            rows = connection.execute(select(sweeps).where(sweeps.c.id == sweep_id)).mappings().all()
            return next(iter(_with_counts(connection, rows)), None)

    def find_sweeps(self, text: str, *, owner: str | None = None, limit: int = 3) -> list[str]:
        part = text.lower()
        if not part.isascii() or not part.isalnum():
            return []
        mine = [sweeps.c.owner == owner] if owner is not None else []
        named = or_(sweeps.c.id.like(f"{part}%"), sweeps.c.id.like(f"%{part}"))
        with reading(self._engine) as connection:
            return list(
                connection.scalars(select(sweeps.c.id).where(named, *mine).order_by(sweeps.c.id.desc()).limit(limit))
            )

    def sweeps(self, *, owner: str | None, limit: int, after: str | None) -> list[Sweep]:
        statement = select(sweeps).order_by(sweeps.c.id.desc()).limit(limit)
        if owner is not None:
            statement = statement.where(sweeps.c.owner == owner)
        if after is not None:
            statement = statement.where(sweeps.c.id < after)
        with reading(self._engine) as connection:
            return _with_counts(connection, connection.execute(statement).mappings().all())

    def cancel_sweep(self, sweep_id: str) -> list[Job]:
        created = jobs.c.sweep_id == sweep_id
        with writing(self._engine) as connection:
            # Queued first: a claim in between makes one running, which the second statement then sees.
            cancelled = change(connection, transitions.cancel_queued(locked(created, JobState.QUEUED)))
            cancelled += change(connection, transitions.cancel_running(locked(created, JobState.RUNNING)))
            cancel_candidates(connection, cancelled)
            return cancelled

    def retry_sweep(self, sweep_id: str, states: Sequence[JobState]) -> list[Job]:
        own = jobs.c.id.in_(ids_of_sweep(sweep_id))
        with writing(self._engine) as connection:
            return change(connection, transitions.retry(locked(own, *states)))

    def count_identical(self, owner: str, digests: Sequence[str]) -> int:
        wanted, found = sorted(set(digests)), 0
        with reading(self._engine) as connection:
            for start in range(0, len(wanted), _CHUNK):
                part = wanted[start : start + _CHUNK]
                found += connection.scalar(
                    select(func.count(jobs.c.digest.distinct())).where(
                        jobs.c.digest.in_(part), jobs.c.owner == owner, LIVE
                    )
                ) or 0  # fmt: skip
        return found


def insert_sweep(connection: Connection, sweep: NewSweep) -> None:
    connection.execute(
        insert(sweeps).values(
            id=sweep.id,
            owner=sweep.owner,
            name=sweep.name,
            spec=sweep.spec,
            created_at=db_now(),
            search_id=sweep.search_id,
        )
    )


def link_shared(connection: Connection, sweep_id: str, added: Iterable[Added]) -> None:
    """Note which jobs of a sweep were there before it; a link that exists already stays."""
    shared = {item.job.id for item in added if item.job.sweep_id != sweep_id}
    known = select(sweep_links.c.job_id).where(sweep_links.c.sweep_id == sweep_id)
    if shared:
        shared -= set(connection.scalars(known))
    if shared:
        connection.execute(insert(sweep_links), [{"sweep_id": sweep_id, "job_id": job_id} for job_id in sorted(shared)])


def _with_counts(connection: Connection, rows: Sequence[Any]) -> list[Sweep]:
    """The sweeps of ``rows``, in their order, with what their jobs amount to: one query for all of them."""
    ids = [row["id"] for row in rows]
    if not ids:
        return []
    created = select(jobs.c.sweep_id, jobs.c.id.label("job_id"), literal_column("0").label("shared"))
    linked = select(sweep_links.c.sweep_id, sweep_links.c.job_id, literal_column("1").label("shared"))
    children = union_all(
        created.where(jobs.c.sweep_id.in_(ids)), linked.where(sweep_links.c.sweep_id.in_(ids))
    ).subquery("children")
    found = connection.execute(
        select(
            children.c.sweep_id,
            jobs.c.state,
            func.count().label("jobs"),
            func.sum(children.c.shared).label("shared"),
            func.count().filter(and_(jobs.c.gate_passed.is_(False), jobs.c.state == JobState.SUCCEEDED)).label("gates"),
            func.sum(jobs.c.progress).label("progress"),
            func.min(jobs.c.started_at).label("started_at"),
            func.max(jobs.c.finished_at).label("finished_at"),
        )
        .select_from(children.join(jobs, jobs.c.id == children.c.job_id))
        .group_by(children.c.sweep_id, jobs.c.state)
    ).mappings()
    groups: dict[str, list[Any]] = {}
    for row in found:
        groups.setdefault(row["sweep_id"], []).append(row)
    return [_sweep_of(row, groups.get(row["id"], [])) for row in rows]


def _sweep_of(row: Any, groups: Iterable[Any]) -> Sweep:
    groups = list(groups)
    started = [group["started_at"] for group in groups if group["started_at"] is not None]
    finished = [group["finished_at"] for group in groups if group["finished_at"] is not None]
    return Sweep(
        id=row["id"],
        owner=row["owner"],
        spec=row["spec"],
        name=row["name"],
        created_at=row["created_at"],
        counts={JobState(group["state"]): group["jobs"] for group in groups},
        shared=sum(int(group["shared"]) for group in groups),
        gates_failed=sum(group["gates"] for group in groups),
        progress_sum=sum(group["progress"] for group in groups if group["state"] == JobState.RUNNING),
        started_at=min(started, default=None),
        finished_at=max(finished, default=None),
        search_id=row["search_id"],
    )
