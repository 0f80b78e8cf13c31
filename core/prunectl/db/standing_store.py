"""Where a queued job stands, counted as the claim orders: priority, then the owner with fewest running, then age."""

from __future__ import annotations

from sqlalchemy import Engine, and_, func, or_, select, tuple_

from prunectl.db import transitions
from prunectl.db.limit_store import limit_of
from prunectl.db.session import reading
from prunectl.db.tables import db_now, jobs
from prunectl.jobs.model import JobState
from prunectl.jobs.records import OwnerLoad, Standing


class SqlStandingStore:
    """`prunectl.jobs.ports.StandingStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def standing(self, job_id: str, *, max_running_per_owner: int | None = None) -> Standing | None:
        with reading(self._engine) as connection:
            job = connection.execute(
                select(
                    jobs.c.owner,
                    jobs.c.queue,
                    jobs.c.priority,
                    jobs.c.created_at,
                    db_now().label("now"),
                    limit_of(jobs.c.owner, max_running_per_owner).label("owner_limit"),
                ).where(jobs.c.id == job_id)
            ).one_or_none()
            if job is None:
                return None
            mine = connection.scalar(
                select(func.count()).where(transitions.in_state(JobState.RUNNING), jobs.c.owner == job.owner)
            ) or 0  # fmt: skip
            busy = (
                select(jobs.c.owner, func.count().label("n"))
                .where(transitions.in_state(JobState.RUNNING))
                .group_by(jobs.c.owner)
                .subquery("busy")
            )
            theirs = func.coalesce(busy.c.n, 0)
            limit = limit_of(jobs.c.owner, max_running_per_owner)
            higher = jobs.c.priority > job.priority
            level = jobs.c.priority == job.priority
            older = tuple_(jobs.c.created_at, jobs.c.id) < tuple_(job.created_at, job_id)
            counts = connection.execute(
                select(
                    func.count().filter(higher).label("priority"),
                    func.count().filter(and_(level, theirs < mine)).label("fair_share"),
                    func.count().filter(and_(level, theirs == mine, older)).label("age"),
                )
                .select_from(jobs.outerjoin(busy, busy.c.owner == jobs.c.owner))
                .where(
                    transitions.claimable(),
                    jobs.c.queue == job.queue,
                    jobs.c.id != job_id,
                    or_(limit.is_(None), theirs < limit),
                )
            ).one()
            queue_running = connection.scalar(
                select(func.count()).where(transitions.in_state(JobState.RUNNING), jobs.c.queue == job.queue)
            )
        return Standing(
            now=job.now,
            owner_running=mine,
            owner_limit=job.owner_limit,
            ahead_by_priority=counts.priority,
            ahead_by_fair_share=counts.fair_share,
            ahead_by_age=counts.age,
            queue_running=queue_running or 0,
        )

    def loads(self) -> list[OwnerLoad]:
        active = jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(
                    jobs.c.owner,
                    func.count().filter(transitions.in_state(JobState.RUNNING)),
                    func.count().filter(transitions.in_state(JobState.QUEUED)),
                )
                .where(active)
                .group_by(jobs.c.owner)
                .order_by(jobs.c.owner)
            )
            return [OwnerLoad(owner, running, queued) for owner, running, queued in rows]
