"""Thousands of rows at once.

On PostgreSQL they come in by COPY: a statement with a parameter for each value takes longer to parse, on both sides, than
the rows take to insert.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy import (
    JSON,
    Connection,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    literal_column,
    select,
    table,
    text,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.selectable import TableValuedAlias

from prunectl.db.tables import LIVE, db_now, events, jobs
from prunectl.jobs.model import JobState
from prunectl.jobs.records import NewJob

_CHUNK = 500  # values in one IN (…)
_MANY = 100  # rows from which on COPY is worth its table


def insert_new_jobs(
    connection: Connection, new_jobs: Sequence[NewJob], row: Callable[[NewJob], dict[str, Any]]
) -> list[str]:
    """Insert what has no live identical job; the ids that went in. ``row`` gives each its row, all with the same keys."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insertion = dialect.insert(jobs)
    without_twins = {"index_elements": ["owner", "dedupe_key"], "index_where": LIVE}
    if len(new_jobs) < _MANY or dialect is sqlite:
        statement = insertion.on_conflict_do_nothing(**without_twins).returning(jobs.c.id)
        return list(connection.scalars(statement, [row(new) for new in new_jobs]))
    names = list(row(new_jobs[0]))
    try:
        with connection.begin_nested():
            _copy(connection, "jobs", jobs, names, map(row, new_jobs))
        return [new.id for new in new_jobs]
    except IntegrityError:
        # Another submit has just queued one of them. COPY knows no ON CONFLICT, so now the rows go through a table.
        connection.execute(text("CREATE TEMPORARY TABLE new_jobs (LIKE jobs INCLUDING DEFAULTS) ON COMMIT DROP"))
    _copy(connection, "pg_temp.new_jobs", jobs, names, map(row, new_jobs))
    given = table("new_jobs", *(column(name, jobs.c[name].type) for name in names), schema="pg_temp")
    statement = insertion.from_select(names, select(given)).on_conflict_do_nothing(**without_twins)
    inserted = list(connection.scalars(statement.returning(jobs.c.id)))
    connection.execute(text("DROP TABLE pg_temp.new_jobs"))
    return inserted


def insert_queued_events(connection: Connection, job_ids: Sequence[str]) -> None:
    """Insert the events of jobs that are queued now. All say the same, so the database makes them of the ids alone."""
    if not job_ids:
        return
    data = {"state": JobState.QUEUED.value}
    if len(job_ids) < _MANY or connection.dialect.name != "postgresql":
        insert_events(connection, [{"job_id": id_, "attempt": 0, "kind": "state", "data": data} for id_ in job_ids])
        return
    given = _texts("ids", job_ids)
    rows = select(given.c.value, literal(0), db_now(), literal("state"), literal(data, events.c.data.type))
    connection.execute(insert(events).from_select(["job_id", "attempt", "at", "kind", "data"], rows))


def insert_events(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert events of now. Every row has ``job_id``, ``attempt``, ``kind`` and ``data``."""
    if len(rows) < _MANY or connection.dialect.name != "postgresql":
        connection.execute(insert(events).values(at=db_now()), list(rows))
        return
    now = connection.execute(select(db_now())).scalar_one()
    _copy(connection, "events", events, [*rows[0], "at"], [{**row, "at": now} for row in rows])


def _copy(
    connection: Connection, into: str, types: Table, names: Sequence[str], rows: Iterable[dict[str, Any]]
) -> None:
    encoded = {name for name in names if isinstance(types.c[name].type, JSON)}
    columns = ", ".join(f'"{name}"' for name in names)
    statement = f"COPY {into} ({columns}) FROM STDIN"
    driver: Any = connection.dialect.loaded_dbapi
    cursor: Any = connection.connection.cursor()
    try:
        with cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row([to_json(row[name]).decode() if name in encoded else row[name] for name in names])
    except driver.Error as error:  # as SQLAlchemy raises it, which does not see this cursor
        raise DBAPIError.instance(statement, None, error, driver.Error, dialect=connection.dialect) from error


def _texts(name: str, values: Sequence[str]) -> TableValuedAlias:
    """PostgreSQL: the values as rows ``value``, handed over as one parameter."""
    given = func.json_array_elements_text(cast(bindparam(name, json.dumps(values), Text), JSON))
    return given.table_valued(column("value", Text), name=name).render_derived()


def live_ids(connection: Connection, wanted: Collection[tuple[str, str]]) -> list[str]:
    """Ids of the live jobs that have one of the pairs (owner, digest)."""
    digests = sorted({digest for _, digest in wanted})
    same = select(jobs.c.id, jobs.c.owner, jobs.c.digest).where(LIVE)
    if connection.dialect.name == "postgresql":
        pairs = _texts("wanted", digests)
        # OFFSET 0 keeps the two apart: one probe of the digest's index each, whatever the planner knows of the table.
        found = same.where(jobs.c.digest == pairs.c.value).offset(literal_column("0")).lateral("same")
        rows = connection.execute(select(found).select_from(pairs.join(found, true()))).all()
    else:
        parts = [digests[start : start + _CHUNK] for start in range(0, len(digests), _CHUNK)]
        rows = [row for part in parts for row in connection.execute(same.where(jobs.c.digest.in_(part)))]
    return [job_id for job_id, owner, digest in rows if (owner, digest) in wanted]
