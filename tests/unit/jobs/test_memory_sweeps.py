from __future__ import annotations

import pytest

from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.memory_standing import MemoryLimitStore, MemoryStandingStore
from prunectl.jobs.memory_sweeps import MemorySweepStore
from support.standing_stores import StandingContract
from support.sweep_stores import SweepStoreContract


class TestMemorySweepStore(SweepStoreContract):
    @pytest.fixture
    def store(self) -> MemoryJobStore:
        return MemoryJobStore()

    @pytest.fixture
    def sweeps(self, store: MemoryJobStore) -> MemorySweepStore:
        return MemorySweepStore(store)


class TestMemoryStandingStore(StandingContract):
    @pytest.fixture
    def store(self) -> MemoryJobStore:
        return MemoryJobStore()

    @pytest.fixture
    def standings(self, store: MemoryJobStore) -> MemoryStandingStore:
        return MemoryStandingStore(store)

    @pytest.fixture
    def limits(self, store: MemoryJobStore) -> MemoryLimitStore:
        return MemoryLimitStore(store)
