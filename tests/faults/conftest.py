"""Three stacks; `make test-faults` runs this folder whole, `make test` none of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prunectl.db import migrate
from support.databases import sqlite_template, sqlite_url
from support.faults import assert_scratch_can_go
from support.fleet import Fleet
from support.servers import RedisServer, postgres_database, postgres_url

__all__ = ["postgres_database", "postgres_url", "sqlite_template", "sqlite_url"]

STACKS = ("filesystem, SQLite", "Redis, SQLite", "Redis, PostgreSQL")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@dataclass
class Stack:
    """A database and a broker of the test's own."""

    database: str
    broker: str
    redis: RedisServer | None


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    if request.param.endswith("PostgreSQL"):
        database = request.getfixturevalue("postgres_database")
        migrate.upgrade(database)
    else:
        database = request.getfixturevalue("sqlite_url")
    if request.param.startswith("filesystem"):
        yield Stack(database, "filesystem://", None)
        return
    server = RedisServer()
    try:
        yield Stack(database, server.url, server)
    finally:
        server.kill()


@pytest.fixture
def fleet(stack: Stack, tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path, database_url=stack.database, broker_url=stack.broker)
    try:
        yield found
    finally:
        found.close()
    assert_scratch_can_go(tmp_path)


@pytest.fixture
def sweeper(fleet: Fleet) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process that sweeps and does nothing else."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "support.queue_stub", "sweeper"]
        started.append(subprocess.Popen(command, env=fleet.environment(), cwd=fleet.settings.home))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
