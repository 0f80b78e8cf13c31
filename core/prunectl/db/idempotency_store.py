"""What an earlier request with the same idempotency key created."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from prunectl.db.session import reading
from prunectl.db.tables import db_now, idempotency_keys
from prunectl.jobs.records import AlreadyAnswered, RequestKey

KEEP_SECONDS = 7 * 86400.0
"""How long keys are kept."""


class SqlIdempotencyStore:
    """`prunectl.jobs.ports.IdempotencyStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def recall(self, owner: str, key: str) -> tuple[str, list[str]] | None:
        table = idempotency_keys
        with reading(self._engine) as connection:
            row = connection.execute(
                select(table.c.body_sha256, table.c.job_ids).where(table.c.owner == owner, table.c.key == key)
            ).first()
        return None if row is None else (row.body_sha256, list(row.job_ids))


@contextmanager
def answering(connection: Connection, request: RequestKey | None) -> Iterator[list[str]]:
    """Around what a request makes, in its transaction: the ids that are put into the list are kept under its key.

    A second request with the key waits here for the end of the first, and raises AlreadyAnswered if that has committed.
    """
    made: list[str] = []
    if request is None:
        yield made
        return
    table = idempotency_keys
    here = (table.c.owner == request.owner, table.c.key == request.key)
    key = tuple_(table.c.owner, table.c.key)
    old = select(table.c.owner, table.c.key).where(table.c.created_at < db_now() - KEEP_SECONDS)
    # What another transaction is about to remove is left to it: nobody waits for that.
    connection.execute(table.delete().where(key.in_(old.with_for_update(skip_locked=True))))
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"owner": request.owner, "key": request.key, "body_sha256": request.body_sha256, "job_ids": []}
    insertion = dialect.insert(table).values(**row, created_at=db_now())
    first = insertion.on_conflict_do_nothing(index_elements=["owner", "key"]).returning(table.c.key)
    if connection.execute(first).one_or_none() is None:
        raise AlreadyAnswered
    yield made
    connection.execute(table.update().where(*here).values(job_ids=made))
