"""The contract on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from prunectl.db import migrate
from prunectl.db.job_store import SqlJobStore
from prunectl.db.limit_store import SqlLimitStore
from prunectl.db.search_store import SqlSearchStore
from prunectl.db.session import make_engine
from prunectl.db.standing_store import SqlStandingStore
from prunectl.db.sweep_store import SqlSweepStore
from prunectl.db.tables import metadata
from support.search_stores import SearchStoreContract
from support.servers import fresh_database
from support.standing_stores import StandingContract
from support.steering_stores import SteeringContract
from support.stores import JobStoreContract, add
from support.sweep_stores import SqlSweepStoreContract, SweepStoreContract


@pytest.fixture(scope="module")
def migrated(postgres_url: str) -> Iterator[Engine]:
    with fresh_database(postgres_url) as url:
        migrate.upgrade(url)
        engine = make_engine(url)
        yield engine
        engine.dispose()


class TestPostgresJobStore(JobStoreContract, SteeringContract):
    @pytest.fixture
    def store(self, migrated: Engine) -> SqlJobStore:
        with migrated.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
        return SqlJobStore(migrated)


class TestPostgresSweepStore(SweepStoreContract, SqlSweepStoreContract):
    @pytest.fixture
    def store(self, migrated: Engine) -> SqlJobStore:
        with migrated.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
        return SqlJobStore(migrated)

    @pytest.fixture
    def sweeps(self, store: SqlJobStore, migrated: Engine) -> SqlSweepStore:
        return SqlSweepStore(migrated)


class TestPostgresStandingStore(StandingContract):
    @pytest.fixture
    def store(self, migrated: Engine) -> SqlJobStore:
        with migrated.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
        return SqlJobStore(migrated)

    @pytest.fixture
    def standings(self, store: SqlJobStore, migrated: Engine) -> SqlStandingStore:
        return SqlStandingStore(migrated)

    @pytest.fixture
    def limits(self, store: SqlJobStore, migrated: Engine) -> SqlLimitStore:
        return SqlLimitStore(migrated)


def test_sessions_that_the_server_ends_are_replaced(migrated: Engine) -> None:
    store = SqlJobStore(migrated)
    job = add(store)
    with migrated.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    assert store.get(job.id) == job


class TestPostgresSearchStore(SearchStoreContract):
    @pytest.fixture
    def store(self, migrated: Engine) -> SqlJobStore:
        with migrated.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
        return SqlJobStore(migrated)

    @pytest.fixture
    def sweeps(self, store: SqlJobStore, migrated: Engine) -> SqlSweepStore:
        return SqlSweepStore(migrated)

    @pytest.fixture
    def searches(self, store: SqlJobStore, migrated: Engine) -> SqlSearchStore:
        return SqlSearchStore(migrated)
