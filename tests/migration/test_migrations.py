"""Forward, back and forward again on both databases; the migrated schema is the one that the code has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from prunectl.db import migrate
from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from prunectl.db.tables import metadata
from prunectl.errors import InvalidInput, Unavailable
from support.queue_stub import python_path
from support.stores import add


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'with space' / 'prunectl.db'}"
    found: str = request.getfixturevalue("postgres_database")
    return found


def tables(url: str) -> set[str]:
    return set(inspect(make_engine(url, pooled=False)).get_table_names()) - {"alembic_version"}


def test_forward_back_and_forward(url: str) -> None:
    assert migrate.current(url) is None
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    assert tables(url) == set(metadata.tables)
    migrate.upgrade(url)  # again: nothing to do
    store = SqlJobStore(make_engine(url, pooled=False))
    assert store.get(add(store).id) is not None
    migrate.downgrade(url, "base")
    assert migrate.current(url) is None
    assert tables(url) == set()
    migrate.upgrade(url)
    add(store)


def test_the_migrated_schema_is_the_codes(url: str) -> None:
    migrate.upgrade(url)
    with make_engine(url, pooled=False).connect() as connection, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*expression-based index")  # SQLite can't reflect one
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        constraints = {item["name"] for item in inspect(connection).get_check_constraints("jobs")}
    assert constraints == {"ck_jobs_state", "ck_jobs_lease"}


def test_two_processes_at_once(url: str) -> None:
    code = f"from prunectl.db import migrate; migrate.upgrade({url!r}); print(migrate.current({url!r}))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": python_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.strip() == migrate.head()


def test_an_unknown_revision_changes_nothing(url: str) -> None:
    migrate.upgrade(url)
    with pytest.raises(InvalidInput, match="can't migrate"):
        migrate.upgrade(url, "nonsense")
    assert migrate.current(url) == migrate.head()


def test_a_migration_that_fails_halfway_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    migrate.upgrade(url)
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate.migrations_directory(), scripts)
    last = migrate.head()
    (scripts / "versions" / "9999_breaks.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = '9999_breaks', {last!r}\n"
        "def upgrade():\n"
        "    op.create_table('half', sa.Column('id', sa.Integer, primary_key=True))\n"
        "    raise RuntimeError('power cut')\n"
    )
    monkeypatch.setattr(migrate, "migrations_directory", lambda: scripts)
    with pytest.raises(RuntimeError, match="power cut"):
        migrate.upgrade(url)
    assert "half" not in tables(url)
    assert migrate.current(url) == last


def test_no_server() -> None:
    with pytest.raises(Unavailable):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/none")
