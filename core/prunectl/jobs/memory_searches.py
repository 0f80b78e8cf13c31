"""Searches in memory, beside a `MemoryJobStore` and its `MemorySweepStore`."""

from __future__ import annotations

from collections.abc import Sequence

from prunectl.jobs import model
from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.memory_sweeps import MemorySweepStore
from prunectl.jobs.model import Job, Lease
from prunectl.jobs.records import Added, Candidates, NewJob, NewSweep


class MemorySearchStore:
    """`prunectl.jobs.ports.SearchStore` in one process."""

    def __init__(self, jobs: MemoryJobStore, sweeps: MemorySweepStore) -> None:
        self._jobs = jobs
        self._sweeps = sweeps

    def candidates(self, search_id: str) -> Candidates | None:
        with self._jobs.lock:
            sweep_id = self._jobs.searches.get(search_id)
            if sweep_id is None:
                return None
            return Candidates(sweep_id, sorted(self._jobs.of_sweep(sweep_id), key=lambda job: job.id))

    def wait_for(self, lease: Lease, sweep: NewSweep, jobs: Sequence[NewJob]) -> list[Added] | None:
        with self._jobs.lock:
            moved = self._jobs.move(
                lease.job_id, lambda job: model.wait_for(job, lease, sweep.id, now=self._jobs.now())
            )
            if moved is None:
                return None
            if moved.waits_for is None:
                return []
            self._jobs.searches[lease.job_id] = sweep.id
            added = self._jobs.add(jobs)
            self._sweeps.keep(sweep, added)
            return added

    def wake(self) -> list[Job]:
        with self._jobs.lock:
            waiting = [job for job in self._jobs.all() if job.waits_for is not None]
            ready = [job for job in waiting if all(c.state.terminal for c in self._jobs.of_sweep(job.waits_for or ""))]
            moved = [self._jobs.move(job.id, lambda job: model.wake(job, now=self._jobs.now())) for job in ready]
            return [job for job in moved if job is not None]
