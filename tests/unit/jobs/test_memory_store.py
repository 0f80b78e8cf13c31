from __future__ import annotations

import pytest

from prunectl.jobs.memory import MemoryJobStore
from support.steering_stores import SteeringContract
from support.stores import JobStoreContract


class TestMemoryJobStore(JobStoreContract, SteeringContract):
    @pytest.fixture
    def store(self) -> MemoryJobStore:
        return MemoryJobStore()
