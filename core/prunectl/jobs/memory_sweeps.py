"""Sweeps in memory, beside a `MemoryJobStore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.model import Job, JobState
from prunectl.jobs.records import Added, NewJob, NewSweep, RequestKey, Sweep


class MemorySweepStore:
    """`prunectl.jobs.ports.SweepStore` beside a `MemoryJobStore`."""

    def __init__(self, jobs: MemoryJobStore) -> None:
        self._jobs = jobs
        self._sweeps: dict[str, Sweep] = {}

    def add_sweep(
        self, sweep: NewSweep, jobs: Sequence[NewJob], *, force: bool = False, request: RequestKey | None = None
    ) -> list[Added]:
        with self._jobs.answering(request) as made:
            made.append(sweep.id)
            added = self._jobs.add(jobs, force=force)
            self.keep(sweep, added)
            return added

    def keep(self, sweep: NewSweep, added: Sequence[Added]) -> None:
        """Make the sweep, or let it grow."""
        with self._jobs.lock:
            shared = {item.job.id for item in added if item.job.sweep_id != sweep.id}
            self._jobs.links[sweep.id] = self._jobs.links.get(sweep.id, set()) | shared
            self._sweeps.setdefault(
                sweep.id,
                Sweep(
                    id=sweep.id,
                    owner=sweep.owner,
                    spec=sweep.spec,
                    name=sweep.name,
                    created_at=self._jobs.now(),
                    search_id=sweep.search_id,
                ),
            )

    def sweep(self, sweep_id: str) -> Sweep | None:
        with self._jobs.lock:
            sweep = self._sweeps.get(sweep_id)
            if sweep is None:
                return None
            found = self._jobs.of_sweep(sweep_id)
            states = [job.state for job in found]
            gates = [((job.result or {}).get("gate") or {}).get("passed") for job in found]
            return replace(
                sweep,
                counts={state: states.count(state) for state in JobState if state in states},
                shared=sum(job.sweep_id != sweep_id for job in found),
                gates_failed=sum(
                    gate is False and job.state is JobState.SUCCEEDED for gate, job in zip(gates, found, strict=True)
                ),
                progress_sum=sum(job.progress for job in found if job.state is JobState.RUNNING),
                started_at=min((job.started_at for job in found if job.started_at is not None), default=None),
                finished_at=max((job.finished_at for job in found if job.finished_at is not None), default=None),
            )

    def find_sweeps(self, text: str, *, owner: str | None = None, limit: int = 3) -> list[str]:
        part = text.lower()
        found = [
            sweep.id
            for sweep in self._sweeps.values()
            if part.isalnum()
            and (sweep.id.startswith(part) or sweep.id.endswith(part))
            and owner in (None, sweep.owner)
        ]
        return sorted(found, reverse=True)[:limit]

    def sweeps(self, *, owner: str | None, limit: int, after: str | None) -> list[Sweep]:
        ids = sorted((sweep.id for sweep in self._sweeps.values() if owner in (None, sweep.owner)), reverse=True)
        chosen = [sweep_id for sweep_id in ids if after is None or sweep_id < after][:limit]
        return [sweep for sweep_id in chosen if (sweep := self.sweep(sweep_id)) is not None]

    def cancel_sweep(self, sweep_id: str) -> list[Job]:
        with self._jobs.lock:
            active = [
                job
                for job in self._jobs.of_sweep(sweep_id)
                if job.sweep_id == sweep_id and not job.state.terminal and job.cancel_requested_at is None
            ]
            return [moved for job in active if (moved := self._jobs.cancel(job.id)) is not None]

    def retry_sweep(self, sweep_id: str, states: Sequence[JobState]) -> list[Job]:
        with self._jobs.lock:
            ended = [
                job
                for job in self._jobs.of_sweep(sweep_id)
                if job.state in states and job.state in (JobState.FAILED, JobState.CANCELLED)
            ]
            return [moved for job in ended if (moved := self._jobs.retry(job.id)) is not None]

    def count_identical(self, owner: str, digests: Sequence[str]) -> int:
        return len({digest for digest in digests if self._jobs.has_identical(owner, digest)})
