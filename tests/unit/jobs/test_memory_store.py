from __future__ import annotations

import pytest

from prunectl.jobs.memory import MemoryJobStore
from support.stores import JobStoreContract


class TestMemoryJobStore(JobStoreContract):
    @pytest.fixture
    def store(self) -> MemoryJobStore:
        return MemoryJobStore()
