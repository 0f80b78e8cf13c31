"""Who is alive: one row a worker process."""

from __future__ import annotations

from sqlalchemy import Engine, func, select
from sqlalchemy.dialects import postgresql, sqlite

from prunectl.db.session import reading, writing
from prunectl.db.tables import db_now, workers
from prunectl.jobs.records import Worker


class SqlWorkerStore:
    """`prunectl.jobs.ports.WorkerStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def announce(self, worker: Worker) -> None:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        values = {
            "token": worker.token,
            "name": worker.name,
            "host": worker.host,
            "pid": worker.pid,
            "queues": list(worker.queues),
            "slots": worker.slots,
            "device": worker.device,
            "version": worker.version,
        }
        insert = dialect.insert(workers).values(**values, started_at=db_now(), seen_at=db_now())
        changed = {**{name: value for name, value in values.items() if name != "token"}, "seen_at": db_now()}
        with writing(self._engine) as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["token"], set_=changed))

    def workers(self, *, alive_within_seconds: float | None = None) -> list[Worker]:
        statement = select(workers).order_by(workers.c.started_at, workers.c.token)
        if alive_within_seconds is not None:
            statement = statement.where(workers.c.seen_at >= db_now() - alive_within_seconds)
        with reading(self._engine) as connection:
            rows = connection.execute(statement).mappings().all()
        return [Worker(**{**row, "queues": tuple(row["queues"])}) for row in rows]

    def count_alive(self, within_seconds: float) -> int:
        lately = select(func.count()).select_from(workers).where(workers.c.seen_at >= db_now() - within_seconds)
        with reading(self._engine) as connection:
            return connection.scalar(lately) or 0

    def forget(self, token: str) -> None:
        with writing(self._engine) as connection:
            connection.execute(workers.delete().where(workers.c.token == token))

    def forget_silent(self, seconds: float) -> None:
        with writing(self._engine) as connection:
            connection.execute(workers.delete().where(workers.c.seen_at < db_now() - seconds))
