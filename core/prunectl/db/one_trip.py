"""PostgreSQL: a whole transition, its event and its metrics in one statement, which is its own transaction.

What a claim and a result cost is round trips: begin, read, change, tell, commit. The portable way of
`prunectl.db.job_store` remains where this one finds nothing, and on SQLite, where a statement is a function call.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    JSON,
    ColumnElement,
    Select,
    String,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    select,
    union_all,
)
from sqlalchemy.types import TypeEngine

from prunectl.db import transitions
from prunectl.db.claiming import Turn, claim_one_of, idle_owner, waiting_owners
from prunectl.db.job_rows import measures_of
from prunectl.db.tables import db_now, events, jobs, metrics, owner_limits
from prunectl.jobs.model import JobState, Lease

_MEASURES: dict[str, TypeEngine[Any]] = {
    column.name: column.type for column in metrics.c if column.name not in ("job_id", "attempt")
}


@lru_cache(maxsize=64)
def claim_first(queues: tuple[str, ...], *, steered: bool) -> Select[Any]:
    """The claimed job's whole row; none where nothing waits, others hold all of the first owner's jobs, or any limit is set.

    A limit needs the claims' turns, and a statement that waits for its turn would count what ran before the wait. Takes the
    parameters of `prunectl.db.claiming.waiting_owners` with ``:take`` 1, and those of ``claim_one`` that don't say whose turn it is.
    """
    unlimited = ~select(owner_limits.c.owner).exists()
    walked = waiting_owners(queues, lateral=True).where(unlimited)
    if len(queues) == 1:
        idle = idle_owner(queues[0]).where(unlimited).cte("idle")
        otherwise = walked.where(~select(idle).exists()).subquery()
        first = union_all(select(idle), otherwise.select()).cte("first")
    else:
        first = walked.cte("first")
    turn = Turn(
        queue=select(first.c.queue).scalar_subquery(),
        priority=select(first.c.priority).scalar_subquery(),
        owner=select(first.c.owner).scalar_subquery(),
        oldest=select(first.c.created_at).scalar_subquery(),
    )
    update = claim_one_of(turn, steered=steered)
    claimed = update.returning(jobs).cte("claimed")
    state = func.json_build_object("state", JobState.RUNNING.value, "worker", claimed.c.worker)
    return select(claimed).add_cte(_told(claimed, state))


def succeed(lease: Lease, result: dict[str, Any]) -> tuple[Select[Any], dict[str, Any]]:
    """(statement, its parameters) that writes the result, its metrics and the event.

    Gives when the job ended, no row where the lease is another's.
    """
    values = {
        "the_job": lease.job_id,
        "the_attempt": lease.attempt,
        "the_token": lease.token,
        "the_result": result,
        "measures": json.dumps(measures_of(result)),
        **{f"the_{name}": value for name, value in transitions.said_by(result).items()},
    }
    return _succeed(), values


@lru_cache(maxsize=1)
def _succeed() -> Select[Any]:
    lease = transitions.LeaseGiven(
        job_id=bindparam("the_job", type_=jobs.c.id.type),
        attempt=bindparam("the_attempt", type_=jobs.c.attempt.type),
        token=bindparam("the_token", type_=jobs.c.lease_token.type),
    )
    said = {
        name: bindparam(f"the_{name}", type_=jobs.c[name].type) for name in ("result", "model_digest", "gate_passed")
    }
    ended = (
        transitions.succeed_with(lease, **said).returning(jobs.c.id, jobs.c.attempt, jobs.c.finished_at).cte("ended")
    )
    told = _told(ended, func.json_build_object("state", JobState.SUCCEEDED.value))
    given = func.json_to_recordset(cast(bindparam("measures", type_=Text), JSON))
    measure = given.table_valued(*(column(name, kind) for name, kind in _MEASURES.items()), name="measure")
    measure = measure.render_derived(with_types=True)
    kept = insert(metrics).from_select(
        ["job_id", "attempt", *_MEASURES],
        select(ended.c.id, ended.c.attempt, *(measure.c[name] for name in _MEASURES)).select_from(
            ended.join(measure, literal(True))
        ),
    )
    return select(ended.c.finished_at).add_cte(told, kept.cte("kept"))


def _told(changed: CTE, data: ColumnElement[Any]) -> CTE:
    rows = select(changed.c.id, changed.c.attempt, db_now(), literal("state", String), data)
    return insert(events).from_select(["job_id", "attempt", "at", "kind", "data"], rows).cte("told")
