"""Migrated SQLite databases, quickly: one is migrated, the others are copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from prunectl.db import migrate
from prunectl.db.session import make_engine


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "prunectl.db"
    migrate.upgrade(f"sqlite:///{path}")
    with make_engine(f"sqlite:///{path}").connect() as connection:  # all into the one file that is copied
        connection.exec_driver_sql("SELECT 1")
    assert not path.with_name("prunectl.db-wal").exists() or path.with_name("prunectl.db-wal").stat().st_size == 0
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a fresh migrated database."""
    path = tmp_path / "prunectl.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def sqlite_engine(sqlite_url: str) -> Iterator[Engine]:
    engine = make_engine(sqlite_url)
    yield engine
    engine.dispose()


NewEngine = Callable[[], Engine]
