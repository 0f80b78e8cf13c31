"""How many jobs an owner may have running: limits of single owners, which come before the setting."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Engine, Select, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from prunectl.db.session import reading, writing
from prunectl.db.tables import owner_limits

_CLAIM_LOCK = 0x7072756E_65630001  # any constant of our own: the advisory lock of claims that honour a limit


class SqlLimitStore:
    """`prunectl.jobs.ports.LimitStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def limits(self) -> dict[str, int]:
        with reading(self._engine) as connection:
            rows = connection.execute(select(owner_limits.c.owner, owner_limits.c.max_running))
            return {row.owner: row.max_running for row in rows}

    def set_limit(self, owner: str, max_running: int | None) -> None:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        with writing(self._engine) as connection:
            if max_running is None:
                connection.execute(owner_limits.delete().where(owner_limits.c.owner == owner))
                return
            connection.execute(
                dialect.insert(owner_limits)
                .values(owner=owner, max_running=max_running)
                .on_conflict_do_update(index_elements=["owner"], set_={"max_running": max_running})
            )


def limit_of(owner: ColumnElement[str], default: int | ColumnElement[int] | None) -> ColumnElement[int]:
    """The owner's limit, else the ``default`` of all, else NULL: as many as there are slots."""
    own = select(owner_limits.c.max_running).where(owner_limits.c.owner == owner).scalar_subquery()
    return func.coalesce(own, default) if default is not None else own


def take_turns(max_running_per_owner: int | None) -> Select[tuple[None]]:
    """PostgreSQL: claims don't see each other's running job, so where any limit is set they go one after the other."""
    some_limit = literal(max_running_per_owner is not None) | select(owner_limits.c.owner).exists()
    return select(func.pg_advisory_xact_lock(_CLAIM_LOCK)).where(some_limit)
