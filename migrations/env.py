"""Alembic's entry. ``prunectl migrate`` hands in a connection that holds the lock; plain ``alembic`` makes one."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from prunectl.db.session import make_engine, writing
from prunectl.db.tables import metadata
from prunectl.settings import Settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,  # SQLite can't alter a table in place
        compare_server_default=True,
        transactional_ddl=True,  # true of SQLite too, as our transactions begin by themselves
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    given: Connection | None = context.config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    with writing(make_engine(Settings().database, pooled=False)) as connection:
        run(connection)


def run_offline() -> None:
    context.configure(
        url=Settings().database, target_metadata=metadata, literal_binds=True, dialect_opts={"paramstyle": "named"}
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
