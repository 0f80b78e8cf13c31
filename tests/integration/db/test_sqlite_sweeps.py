from __future__ import annotations

import pytest
from sqlalchemy import Engine

from prunectl.db.job_store import SqlJobStore
from prunectl.db.limit_store import SqlLimitStore
from prunectl.db.search_store import SqlSearchStore
from prunectl.db.standing_store import SqlStandingStore
from prunectl.db.sweep_store import SqlSweepStore
from support.search_stores import SearchStoreContract
from support.standing_stores import StandingContract
from support.sweep_stores import SqlSweepStoreContract, SweepStoreContract


class TestSqliteSweepStore(SweepStoreContract, SqlSweepStoreContract):
    @pytest.fixture
    def store(self, sqlite_engine: Engine) -> SqlJobStore:
        return SqlJobStore(sqlite_engine)

    @pytest.fixture
    def sweeps(self, sqlite_engine: Engine) -> SqlSweepStore:
        return SqlSweepStore(sqlite_engine)


class TestSqliteStandingStore(StandingContract):
    @pytest.fixture
    def store(self, sqlite_engine: Engine) -> SqlJobStore:
        return SqlJobStore(sqlite_engine)

    @pytest.fixture
    def standings(self, sqlite_engine: Engine) -> SqlStandingStore:
        return SqlStandingStore(sqlite_engine)

    @pytest.fixture
    def limits(self, sqlite_engine: Engine) -> SqlLimitStore:
        return SqlLimitStore(sqlite_engine)


class TestSqliteSearchStore(SearchStoreContract):
    @pytest.fixture
    def store(self, sqlite_engine: Engine) -> SqlJobStore:
        return SqlJobStore(sqlite_engine)

    @pytest.fixture
    def sweeps(self, sqlite_engine: Engine) -> SqlSweepStore:
        return SqlSweepStore(sqlite_engine)

    @pytest.fixture
    def searches(self, sqlite_engine: Engine) -> SqlSearchStore:
        return SqlSearchStore(sqlite_engine)
