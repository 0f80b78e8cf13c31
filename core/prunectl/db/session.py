"""An engine for a database URL, and the two kinds of transaction that the stores use.

SQLite: write-ahead log, 30 s of patience for another writer, and writers that take the lock at their first statement
(``BEGIN IMMEDIATE``), because a reader that turns into a writer later can be refused at once. Never on a network disk.
PostgreSQL: connections that rested are tried before use, those that the server has closed are known without asking, and
a half-open one is noticed within about half a minute. Reads are one statement each and need no transaction around it:
that saves two of three round trips.
"""

from __future__ import annotations

import errno
import os
import select
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from prunectl.errors import DiskFull, InvalidInput, PrunectlError, Unavailable

BUSY_TIMEOUT_SECONDS = 30
_RESTED_SECONDS = 2.0
_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def database_url(text: str) -> URL:
    """The URL with its driver. Raises InvalidInput for what is neither SQLite nor PostgreSQL."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise InvalidInput(
            "PRUNECTL_DATABASE_URL is not a database URL",
            hint="sqlite:////absolute/path.db or postgresql+psycopg://user:password@host/database",
            field="database_url",
        ) from error
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return url
    raise InvalidInput(
        f"the database {backend!r} is not supported: sqlite or postgresql", field="database_url", value=backend
    )


def make_engine(text: str, *, pooled: bool = True) -> Engine:
    """An engine for ``text``. Nothing connects yet, except that SQLite's directory is made."""
    url = database_url(text)
    pool: dict[str, Any] = {} if pooled else {"poolclass": NullPool}
    try:
        engine = _sqlite(url, pool) if url.get_backend_name() == "sqlite" else _postgresql(url, pool)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise Unavailable(f"no driver for {url.drivername}", hint="pip install 'prunectl[all]'") from error
    _ENGINES.add(engine)
    return engine


def _sqlite(url: URL, pool: dict[str, Any]) -> Engine:
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"can't make {Path(url.database).parent}: {error.strerror}") from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, **pool)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own: `_begin` does
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA case_sensitive_like = ON")  # as on PostgreSQL; lets a prefix use the index as well

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("prunectl_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL, pool: dict[str, Any]) -> Engine:
    engine = create_engine(
        url,
        connect_args={
            "connect_timeout": 5,
            "keepalives": 1,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,  # milliseconds; a dead peer must not hold a heartbeat for minutes
            "application_name": "prunectl",
        },
        **pool,
    )

    @event.listens_for(engine, "checkin")
    def _note(_connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _try(connection: Any, record: Any, _proxy: Any) -> None:
        used_at = record.info.get("used_at")
        if used_at is None:
            return  # just connected
        # A server that ends a session says so: there is something to read where nobody has asked anything.
        word = select.poll()
        word.register(connection.fileno(), select.POLLIN)
        ended = bool(word.poll(0))
        if not ended and time.monotonic() - used_at < _RESTED_SECONDS:
            return
        if ended or not _answers(engine, connection):
            raise DisconnectionError("the session has ended")

    return engine


def _answers(engine: Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        return False


def _forget_connections() -> None:
    # A connection shared by two processes garbles both: a forked child drops its copies unclosed and opens its own.
    for engine in list(_ENGINES):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """For one statement that reads, or several that need not see the same moment. Raises Unavailable for no answer."""
    with _domain_errors(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            yield connection.execution_options(isolation_level="AUTOCOMMIT")
        else:
            with connection.begin():
                yield connection


@contextmanager
def streaming(engine: Engine) -> Iterator[Connection]:
    """For a statement whose rows come in parts. Raises Unavailable where the database doesn't answer."""
    with _domain_errors(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes; commits at its end. Raises Unavailable or DiskFull."""
    with (
        _domain_errors(),
        engine.connect().execution_options(prunectl_writes=True) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def _domain_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("all database connections are in use", hint="try again in a moment") from error
    except DBAPIError as error:
        known = _translated(error)
        if known is None:
            raise
        raise known from error


def _translated(error: DBAPIError) -> PrunectlError | None:
    """The domain error for what can happen to a sound statement; None for a fault in the statement itself."""
    text = str(error.orig).strip()
    first = text.splitlines()[0] if text else type(error.orig).__name__
    lowered = text.lower()
    sqlstate: str = getattr(error.orig, "sqlstate", None) or ""
    if "no such table" in lowered or "no such column" in lowered or sqlstate in ("42P01", "42703"):
        return Unavailable(f"the database's schema is not this version's: {first}", hint="run: prunectl migrate")
    if "disk is full" in lowered or os.strerror(errno.ENOSPC).lower() in lowered or sqlstate == "53100":
        return DiskFull(f"no space for the database: {first}")
    sqlite_trouble = any(
        sign in lowered
        for sign in (
            "unable to open database",
            "database is locked",
            "readonly database",
            "disk i/o error",
            "malformed",
        )
    )
    lost = error.connection_invalidated or sqlstate[:2] in ("08", "53", "57") or sqlstate in ("40001", "40P01")
    never_connected = (
        type(error.orig).__name__ == "OperationalError"
        and not sqlstate
        and "sqlite3" not in type(error.orig).__module__
    )
    if sqlite_trouble or lost or never_connected:
        return Unavailable(f"the database does not answer: {first}", hint="prunectl doctor names what is wrong")
    return None
