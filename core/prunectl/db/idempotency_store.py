"""What an earlier request with the same idempotency key created."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select
from sqlalchemy.dialects import postgresql, sqlite

from prunectl.db.session import reading, writing
from prunectl.db.tables import db_now, idempotency_keys

KEEP_SECONDS = 7 * 86400.0


class SqlIdempotencyStore:
    """`prunectl.jobs.ports.IdempotencyStore` on SQLite or PostgreSQL. Keys are kept for `KEEP_SECONDS`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def remember(self, owner: str, key: str, body_sha256: str, job_ids: Sequence[str]) -> None:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        table = idempotency_keys
        insert = dialect.insert(table).values(
            owner=owner, key=key, body_sha256=body_sha256, job_ids=list(job_ids), created_at=db_now()
        )
        with writing(self._engine) as connection:
            connection.execute(table.delete().where(table.c.created_at < db_now() - KEEP_SECONDS))
            connection.execute(insert.on_conflict_do_nothing(index_elements=["owner", "key"]))

    def recall(self, owner: str, key: str) -> tuple[str, list[str]] | None:
        table = idempotency_keys
        with reading(self._engine) as connection:
            row = connection.execute(
                select(table.c.body_sha256, table.c.job_ids).where(table.c.owner == owner, table.c.key == key)
            ).first()
        return None if row is None else (row.body_sha256, list(row.job_ids))
