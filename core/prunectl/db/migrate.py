"""Bring a database to a revision of the schema, forward and back. Two processes that do so at once take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import Connection, func, select

from prunectl.db.session import make_engine, reading, writing
from prunectl.errors import InvalidInput, Unavailable

_MIGRATION_LOCK = 0x7072756E_65630002  # any constant of our own
_WAIT_SECONDS = 120.0


def migrations_directory() -> Path:
    """The Alembic scripts: inside the package where it is installed, at the top of a checkout otherwise."""
    installed = Path(__file__).parent / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "migrations"


def head() -> str:
    """The revision that this version of the code works with."""
    revision = ScriptDirectory(str(migrations_directory())).get_current_head()
    if revision is None:
        raise Unavailable(f"no migrations in {migrations_directory()}", hint="reinstall prunectl")
    return revision


def current(url: str) -> str | None:
    """The revision that the database is at; None for an empty one. Raises Unavailable where it doesn't answer."""
    engine = make_engine(url, pooled=False)
    with reading(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def behind(found: str | None) -> bool:
    """Whether this code needs a later revision than ``found``.

    A revision that it doesn't know is a later version's: migrations only add, so an older worker goes on with it, and may
    also start anew while the others are being replaced.
    """
    if found is None:
        return True
    scripts = ScriptDirectory(str(migrations_directory()))
    known = {script.revision for script in scripts.walk_revisions()}
    return found in known and found != head()


def upgrade(url: str, revision: str = "head") -> None:
    """Raises InvalidInput for an unknown revision, Unavailable where the database doesn't answer."""
    with _migrating(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Back to ``revision``; ``base`` is before the first. Raises as `upgrade` does."""
    with _migrating(url) as config:
        command.downgrade(config, revision)


@contextmanager
def _migrating(url: str) -> Iterator[Config]:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    engine = make_engine(url, pooled=False)
    with (
        _one_at_a_time(engine.url.database if engine.dialect.name == "sqlite" else None),
        writing(engine) as connection,
    ):
        if engine.dialect.name == "postgresql":
            _wait_for_others(connection)
        config.attributes["connection"] = connection
        try:
            yield config
        except CommandError as error:
            raise InvalidInput(
                f"can't migrate: {error}", hint="prunectl migrate --revision head", field="revision"
            ) from error


def _wait_for_others(connection: Connection) -> None:
    connection.execute(select(func.set_config("lock_timeout", f"{_WAIT_SECONDS:g}s", True)))
    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))


@contextmanager
def _one_at_a_time(sqlite_file: str | None) -> Iterator[None]:
    if sqlite_file in (None, "", ":memory:"):
        yield
        return
    try:
        with FileLock(f"{sqlite_file}.migrate.lock", timeout=_WAIT_SECONDS):
            yield
    except Timeout as error:
        raise Unavailable("another process is migrating the database", hint="try again when it is done") from error
    except PermissionError as error:
        raise Unavailable(f"can't write beside {sqlite_file}: {error.strerror}") from error
