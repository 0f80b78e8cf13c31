"""Which queued job is next: the best priority, in it the owner with the fewest running jobs, of those the oldest job.

Sorting every queued job at each claim would cost more the longer the queue is. Instead the index ``ix_jobs_claim_owner``
is walked from owner to owner (a loose index scan): a claim costs one probe for each owner who waits at the best
priority, however many jobs wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    Integer,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.sql import Update

from prunectl.db.limit_store import limit_of
from prunectl.db.tables import db_now, jobs
from prunectl.db.transitions import claim, claimable, in_state
from prunectl.jobs.model import JobState
from prunectl.jobs.steering import PATIENCE_SECONDS, STARTING, WINDOW

NO_LIMIT = 2**31 - 1
"""For ``:below`` and ``:max_running``."""
OLDEST = 32
"""Jobs that `idle_owner` looks at."""

_HEAD = (jobs.c.queue, jobs.c.owner, jobs.c.created_at, jobs.c.id)
# Written into the statement: a prepared one that doesn't know its limit is planned as if it wanted every row.
_ONE = literal_column("1", Integer)
_ORDER = (jobs.c.owner, jobs.c.created_at, jobs.c.id)


@lru_cache(maxsize=64)
def best_priority(queues: tuple[str, ...]) -> Select[Any]:
    """The highest priority under ``:below`` at which a job of ``queues`` can be claimed; NULL where there is none."""
    served = _table_of(queues)
    top = (
        select(jobs.c.priority)
        .where(claimable(), jobs.c.queue == served.c.queue, jobs.c.priority < bindparam("below", type_=Integer))
        .order_by(jobs.c.priority.desc())
        .limit(_ONE)
        .correlate(served)
    )
    return select(func.max(top.scalar_subquery())).select_from(served)


@lru_cache(maxsize=64)
def _level(queues: tuple[str, ...]) -> CTE:
    """`best_priority` as a table of one row, the same object wherever a statement needs it: it is looked up once."""
    return select(best_priority(queues).scalar_subquery().label("priority")).cte("level")


@lru_cache(maxsize=64)
def waiting_owners(queues: tuple[str, ...], *, lateral: bool) -> Select[Any]:
    """``priority, queue, owner, created_at`` of those who wait at the best priority under ``:below``, who goes first first.

    ``created_at`` is the owner's oldest job's.

    Leaves out owners with as many running jobs as their own limit or, failing that, ``:max_running`` allows, and the first
    ``:skip`` of the others, and has ``:take`` rows at most. ``lateral``: whether the database has LATERAL joins.
    """
    level = _level(queues)
    waiting = _first_jobs(queues, select(level.c.priority), lateral).cte("waiting")
    running = (
        select(jobs.c.owner, func.count().label("n"))
        .where(in_state(JobState.RUNNING))
        .group_by(jobs.c.owner)
        .subquery("running")
    )
    busy = func.coalesce(running.c.n, 0)
    return (
        select(level.c.priority, waiting.c.queue, waiting.c.owner, waiting.c.created_at)
        .select_from(waiting.join(level, true()).outerjoin(running, running.c.owner == waiting.c.owner))
        .where(busy < limit_of(waiting.c.owner, bindparam("max_running", type_=Integer)))
        .order_by(busy, waiting.c.created_at, waiting.c.id)
        .offset(bindparam("skip", type_=Integer))
        .limit(bindparam("take", type_=Integer))
    )


@lru_cache(maxsize=64)
def idle_owner(queue: str) -> Select[Any]:
    """The first row of `waiting_owners`, found without the walk: where one of the `OLDEST` oldest jobs at the best
    priority has an owner who has nothing running, nobody goes before the owner of the oldest such job. Else no row.

    For PostgreSQL, where no owner has a limit.
    """
    level = _level((queue,))
    oldest = (
        select(*_HEAD)
        .where(claimable(), jobs.c.queue == queue, jobs.c.priority == select(level.c.priority).scalar_subquery())
        .order_by(jobs.c.created_at, jobs.c.id)
        .limit(literal_column(str(OLDEST)))
        .subquery("oldest")
    )
    runs = select(jobs.c.id).where(in_state(JobState.RUNNING), jobs.c.owner == oldest.c.owner)
    return (
        select(level.c.priority, oldest.c.queue, oldest.c.owner, oldest.c.created_at)
        .select_from(oldest.join(level, true()))
        .where(~runs.exists())
        .order_by(oldest.c.created_at, oldest.c.id)
        .limit(_ONE)
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is; ``oldest`` is when the owner's oldest job was queued. Values or expressions."""

    queue: ColumnElement[str]
    priority: ColumnElement[int]
    owner: ColumnElement[str]
    oldest: ColumnElement[float]


@lru_cache(maxsize=2)
def claim_one(*, steered: bool) -> Update:
    """Claim a job of ``:the_owner`` in ``:the_queue`` at ``:the_priority`` that no other claim has locked: the oldest, or
    what `prunectl.jobs.steering.choose` says.

    Also takes ``:by_worker``, ``:on_device``, ``:new_token``, ``:lease_seconds``, and where it is steered, ``:oldest`` and
    ``:warm_model``.
    """
    turn = Turn(
        queue=bindparam("the_queue", type_=String),
        priority=bindparam("the_priority", type_=Integer),
        owner=bindparam("the_owner", type_=String),
        oldest=bindparam("oldest", type_=Double),
    )
    return claim_one_of(turn, steered=steered)


def claim_one_of(turn: Turn, *, steered: bool) -> Update:
    """`claim_one` for a turn that is made of expressions."""
    found = _oldest_of(turn, jobs.c.id, jobs.c.owner).limit(_ONE).with_for_update(skip_locked=True).subquery()
    oldest = select(found.c.id).where(found.c.owner == turn.owner).scalar_subquery()
    return claim(
        # The first that is there, and then the other is neither looked for nor locked.
        func.coalesce(_chosen(turn), oldest) if steered else oldest,
        worker=bindparam("by_worker", type_=String),
        device=bindparam("on_device", type_=String),
        token=bindparam("new_token", type_=String),
        lease_seconds=bindparam("lease_seconds", type_=Double),
    )


def _oldest_of(turn: Turn, *columns: ColumnElement[Any]) -> Select[Any]:
    """The owner's claimable jobs, the oldest first, and behind them those of the owners that follow."""
    return (
        select(*columns)
        # Not an equality, and the owner is compared outside: only with an open range and this order does the claim's own
        # index look best to a planner without statistics, as after a sweep of ten thousand jobs into an empty table.
        .where(claimable(), jobs.c.queue == turn.queue, jobs.c.priority == turn.priority, jobs.c.owner >= turn.owner)
        .order_by(*_ORDER)
    )


def _chosen(turn: Turn) -> ColumnElement[Any]:
    """What `prunectl.jobs.steering.choose` chooses, now locked; NULL where another claim has it, or the oldest is chosen
    for want of another.
    """
    columns = (jobs.c.id, jobs.c.owner, jobs.c.created_at, jobs.c.model_identity)
    # Cut off before anything is compared: the cost is the same however many jobs of other models wait.
    window = _oldest_of(turn, *columns).limit(literal_column(str(WINDOW))).subquery("seen")
    running = (
        select(jobs.c.model_identity, jobs.c.stage)
        .where(in_state(JobState.RUNNING), jobs.c.owner == turn.owner)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(literal_column(str(WINDOW)))
        .subquery("running_now")
    )
    starting = select(running.c.model_identity).where(or_(running.c.stage.is_(None), running.c.stage.in_(STARTING)))
    warm = window.c.model_identity == bindparam("warm_model", type_=String)
    best = (
        select(window.c.id)
        .where(
            window.c.owner == turn.owner,
            or_(turn.oldest > db_now() - PATIENCE_SECONDS, window.c.created_at <= turn.oldest),
            or_(warm, window.c.model_identity.not_in(starting)),
        )
        .order_by(case((warm, 0), else_=1), window.c.created_at, window.c.id)
        .limit(_ONE)
    )
    locked = (
        select(jobs.c.id)
        .where(jobs.c.id == best.scalar_subquery(), claimable())
        .with_for_update(skip_locked=True)
        .subquery("chosen")
    )
    return select(locked.c.id).scalar_subquery()


@lru_cache(maxsize=4)
def counts_of_queues(at_most: int | None) -> Select[Any]:
    """``queue, claimable, running`` of each queue with work; counts no more than ``at_most`` claimable jobs of each."""
    none = literal_column("0", Integer)
    running = select(jobs.c.queue, none.label("ready"), func.count().label("busy")).where(in_state(JobState.RUNNING))
    if at_most is None:
        ready = select(jobs.c.queue, func.count(), none).where(claimable()).group_by(jobs.c.queue)
    else:
        # From queue to queue, by the first column of the claim's index.
        lowest = select(func.min(jobs.c.queue)).where(in_state(JobState.QUEUED))
        walk = select(lowest.scalar_subquery().label("queue")).cte("walk", recursive=True)
        following = lowest.where(jobs.c.queue > walk.c.queue).correlate(walk).scalar_subquery()
        walk = walk.union_all(select(following).where(walk.c.queue.is_not(None)))
        some = (
            select(_ONE)
            .where(claimable(), jobs.c.queue == walk.c.queue)
            .limit(literal_column(str(int(at_most))))
            .correlate(walk)
        )
        number = select(func.count()).select_from(some.subquery()).scalar_subquery()
        ready = select(walk.c.queue, number, none).where(walk.c.queue.is_not(None))
    both = union_all(running.group_by(jobs.c.queue), ready).subquery("both")
    return select(both.c.queue, func.sum(both.c.ready), func.sum(both.c.busy)).group_by(both.c.queue)


def _first_jobs(queues: Sequence[str], priority: Select[Any], lateral: bool) -> Select[Any]:
    """The oldest claimable job of each queue and owner, found from owner to owner."""
    served = _table_of(queues)
    head, on = _next_job(jobs.c.queue == served.c.queue, priority, served, lateral)
    walk = select(*_columns(head)).select_from(served.join(head, on)).cte("walk", recursive=True)
    after = and_(jobs.c.queue == walk.c.queue, jobs.c.owner > walk.c.owner)
    head, on = _next_job(after, priority, walk, lateral)
    return select(walk.union_all(select(*_columns(head)).select_from(walk.join(head, on))))


def _next_job(
    where: ColumnElement[bool], priority: Select[Any], correlate: Subquery | CTE, lateral: bool
) -> tuple[Any, ColumnElement[bool]]:
    """(what to join, on what) for the first row of the index that fits."""
    fitting = (claimable(), jobs.c.priority == priority.scalar_subquery(), where)
    if lateral:
        found = select(*_HEAD).where(*fitting).order_by(*_ORDER).limit(_ONE).correlate(correlate)
        return found.lateral(), true()
    head = jobs.alias()
    found = select(jobs.c.id).where(*fitting).order_by(*_ORDER).limit(_ONE).correlate(correlate)
    return head, head.c.id == found.scalar_subquery()


def _columns(head: Any) -> list[ColumnElement[Any]]:
    return [head.c[column.name] for column in _HEAD]


def _table_of(queues: Sequence[str]) -> Subquery:
    return union_all(*(select(literal(queue, String).label("queue")) for queue in queues)).subquery("served")
