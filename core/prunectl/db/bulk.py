"""Thousands of rows in one statement.

On PostgreSQL they travel as one JSON parameter and are unpacked there: a statement with a parameter for each value takes
longer to parse, on both sides, than the rows take to insert.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from prunectl.db.tables import LIVE, db_now, events, jobs

_CHUNK = 500  # values in one IN (…)


def insert_new_jobs(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Insert what has no live identical job; the ids that went in. Every row has the same keys."""
    names = list(rows[0])
    if connection.dialect.name == "postgresql":
        statement = (
            postgresql.insert(jobs)
            .from_select(names, _records(jobs, names))
            .on_conflict_do_nothing(index_elements=["owner", "dedupe_key"], index_where=LIVE)
        )
        return set(connection.scalars(statement.returning(jobs.c.id), {"rows": json.dumps(rows)}))
    into = sqlite.insert(jobs).on_conflict_do_nothing(index_elements=["owner", "dedupe_key"], index_where=LIVE)
    return set(connection.scalars(into.returning(jobs.c.id), list(rows)))


def insert_events(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert events of now. Every row has ``job_id``, ``attempt``, ``kind`` and ``data``."""
    if connection.dialect.name == "postgresql" and len(rows) > 1:
        names = ["job_id", "attempt", "kind", "data"]
        statement = insert(events).from_select([*names, "at"], _records(events, names).add_columns(db_now()))
        connection.execute(statement, {"rows": json.dumps(rows)})
        return
    connection.execute(insert(events).values(at=db_now()), list(rows))


def live_ids(connection: Connection, wanted: Collection[tuple[str, str]]) -> list[str]:
    """Ids of the live jobs that have one of the pairs (owner, digest)."""
    if connection.dialect.name == "postgresql":
        owners, digests = (list(part) for part in zip(*wanted, strict=True)) if wanted else ([], [])
        pairs = (
            func.unnest(
                cast(bindparam("owners", owners), postgresql.ARRAY(Text)),
                cast(bindparam("digests", digests), postgresql.ARRAY(Text)),
            )
            .table_valued(column("owner", Text), column("digest", Text), name="wanted")
            .render_derived()
        )
        # OFFSET 0 keeps the two apart: one probe of the digest's index a pair, whatever the planner knows of the table.
        same = (
            select(jobs.c.id, jobs.c.owner)
            .where(jobs.c.digest == pairs.c.digest, LIVE)
            .offset(literal_column("0"))
            .lateral("same")
        )
        found = select(same.c.id).select_from(pairs.join(same, true())).where(same.c.owner == pairs.c.owner)
        return list(connection.scalars(found))
    ids: list[str] = []
    pairs_in_order = sorted(wanted)
    for start in range(0, len(pairs_in_order), _CHUNK):
        part = pairs_in_order[start : start + _CHUNK]
        ids += connection.scalars(
            select(jobs.c.id).where(
                jobs.c.digest.in_({digest for _, digest in part}), tuple_(jobs.c.owner, jobs.c.digest).in_(part), LIVE
            )
        )
    return ids


def _records(table: Table, names: Sequence[str]) -> Select[Any]:
    """The JSON array ``:rows`` as rows of ``table``."""
    unpacked = func.json_populate_recordset(
        literal_column(f"CAST(NULL AS {table.name})"), cast(bindparam("rows", type_=Text), JSON)
    ).table_valued(*(column(name, table.c[name].type) for name in names), name="given")
    return select(*(unpacked.c[name] for name in names))
