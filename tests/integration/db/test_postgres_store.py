"""The contract on PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select, text

from prunectl.db import migrate
from prunectl.db.claiming import NO_LIMIT, idle_owner, waiting_owners
from prunectl.db.job_store import SqlJobStore
from prunectl.db.limit_store import SqlLimitStore
from prunectl.db.search_store import SqlSearchStore
from prunectl.db.session import make_engine
from prunectl.db.standing_store import SqlStandingStore
from prunectl.db.sweep_store import SqlSweepStore
from prunectl.db.tables import jobs, metadata
from support.search_stores import SearchStoreContract
from support.servers import fresh_database
from support.standing_stores import StandingContract
from support.steering_stores import SteeringContract
from support.stores import RESULT, JobStoreContract, add, claim
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


@pytest.mark.parametrize("seed", range(5))
def test_whoever_is_found_among_the_oldest_is_who_the_walk_finds(migrated: Engine, seed: int) -> None:
    draw = random.Random(seed)
    with migrated.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    store = SqlJobStore(migrated)
    for _ in range(60):
        owner = draw.choice(["ada", "ada", "ada", "bob", "cy", "di"])
        add(store, owner=owner, priority=draw.choice([0, 0, 5]), queue=draw.choice(["cpu", "cpu", "gpu"]))
    with migrated.begin() as connection:  # in no order of owners, some at the same moment
        for job_id in connection.scalars(select(jobs.c.id)).all():
            moved = jobs.update().where(jobs.c.id == job_id).values(created_at=jobs.c.created_at - draw.randrange(9))
            connection.execute(moved)
    found = 0
    bounds = {"below": NO_LIMIT, "max_running": NO_LIMIT, "skip": 0, "take": 1}
    while True:
        with migrated.connect() as connection:
            walked = connection.execute(waiting_owners(("cpu",), lateral=True), bounds).all()
            idle = connection.execute(idle_owner("cpu"), {"below": NO_LIMIT}).all()
        assert idle in ([], walked)
        found += bool(idle)
        job = claim(store)
        assert (job is None) == (not walked)
        if job is None:
            break
        [(priority, queue, owner, _)] = walked
        assert (job.priority, job.queue, job.owner) == (priority, queue, owner)
        if draw.random() < 0.85:
            assert store.succeed(job.lease, RESULT)
    assert found > 5
