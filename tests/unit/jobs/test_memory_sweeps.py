from __future__ import annotations

import pytest

from prunectl.jobs.memory import MemoryJobStore, MemorySweepStore
from support.sweep_stores import SweepStoreContract


class TestMemorySweepStore(SweepStoreContract):
    @pytest.fixture
    def store(self) -> MemoryJobStore:
        return MemoryJobStore()

    @pytest.fixture
    def sweeps(self, store: MemoryJobStore) -> MemorySweepStore:
        return MemorySweepStore(store)
