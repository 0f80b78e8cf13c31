from __future__ import annotations

import pytest

from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.memory_searches import MemorySearchStore
from prunectl.jobs.memory_sweeps import MemorySweepStore
from support.search_stores import SearchStoreContract


class TestMemorySearchStore(SearchStoreContract):
    @pytest.fixture
    def store(self) -> MemoryJobStore:
        return MemoryJobStore()

    @pytest.fixture
    def sweeps(self, store: MemoryJobStore) -> MemorySweepStore:
        return MemorySweepStore(store)

    @pytest.fixture
    def searches(self, store: MemoryJobStore, sweeps: MemorySweepStore) -> MemorySearchStore:
        return MemorySearchStore(store, sweeps)
