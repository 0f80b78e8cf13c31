"""Standings and limits in memory, of a `MemoryJobStore`."""

from __future__ import annotations

from collections import Counter

from prunectl.jobs import model
from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.model import JobState
from prunectl.jobs.records import OwnerLoad, Standing


class MemoryStandingStore:
    """`prunectl.jobs.ports.StandingStore` of a `MemoryJobStore`."""

    def __init__(self, jobs: MemoryJobStore) -> None:
        self._jobs = jobs

    def standing(self, job_id: str, *, max_running_per_owner: int | None = None) -> Standing | None:
        with self._jobs.lock:
            job, now, running = self._jobs.get(job_id), self._jobs.now(), self._jobs.running_by_owner()
            if job is None:
                return None
            others = [
                other
                for other in self._jobs.all()
                if other.id != job_id
                and other.queue == job.queue
                and model.claimable(other, now)
                and self._jobs.below_limit(other.owner, running[other.owner], max_running_per_owner)
            ]
            level = [other for other in others if other.priority == job.priority]
            return Standing(
                now=now,
                owner_running=running[job.owner],
                owner_limit=self._jobs.limits.get(job.owner, max_running_per_owner),
                ahead_by_priority=sum(other.priority > job.priority for other in others),
                ahead_by_fair_share=sum(running[other.owner] < running[job.owner] for other in level),
                ahead_by_age=sum(
                    running[other.owner] == running[job.owner]
                    and (other.created_at, other.id) < (job.created_at, job.id)
                    for other in level
                ),
                queue_running=sum(o.queue == job.queue and o.state is JobState.RUNNING for o in self._jobs.all()),
            )

    def loads(self) -> list[OwnerLoad]:
        with self._jobs.lock:
            running = self._jobs.running_by_owner()
            queued = Counter(job.owner for job in self._jobs.all() if job.state is JobState.QUEUED)
        return [OwnerLoad(owner, running[owner], queued[owner]) for owner in sorted(running.keys() | queued.keys())]


class MemoryLimitStore:
    """`prunectl.jobs.ports.LimitStore` of a `MemoryJobStore`, whose claims honour it."""

    def __init__(self, jobs: MemoryJobStore) -> None:
        self._jobs = jobs

    def limits(self) -> dict[str, int]:
        return dict(self._jobs.limits)

    def set_limit(self, owner: str, max_running: int | None) -> None:
        with self._jobs.lock:
            if max_running is None:
                self._jobs.limits.pop(owner, None)
            else:
                self._jobs.limits[owner] = max_running
