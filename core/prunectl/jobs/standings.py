"""What may be asked about the queue itself: why a job waits, and who may run how much."""

from __future__ import annotations

from prunectl.jobs.caller import Caller
from prunectl.jobs.ports import LimitStore, StandingStore, SweepStore, WorkerStore
from prunectl.jobs.records import OwnerLoad
from prunectl.jobs.service import JobService
from prunectl.jobs.sweeper import alive_within_seconds
from prunectl.jobs.why import reasons
from prunectl.settings import Settings
from prunectl.standing import Explanation, QuotaPage, QuotaView
from prunectl.version import version


class StandingService:
    """Explains; it changes nothing."""

    def __init__(
        self,
        *,
        jobs: JobService,
        standings: StandingStore,
        limits: LimitStore,
        workers: WorkerStore,
        sweeps: SweepStore,
        settings: Settings,
    ) -> None:
        self._sweeps = sweeps
        self._jobs = jobs
        self._standings = standings
        self._limits = limits
        self._workers = workers
        self._settings = settings

    def why(self, caller: Caller, ref: str) -> Explanation:
        """Why the job waits, runs or has ended. Raises NotFound as `JobService.show` does."""
        caller.require("read")
        job = self._jobs.find(caller, ref)
        standing = self._standings.standing(job.id, max_running_per_owner=self._settings.max_running_per_owner)
        job = self._jobs.find(caller, job.id)  # as it is now: the counts took a moment
        if standing is None:
            raise self._jobs.removed(ref)
        alive = self._workers.workers(alive_within_seconds=alive_within_seconds(self._settings))
        waits_for = None if job.waits_for is None else self._sweeps.sweep(job.waits_for)
        found = reasons(job, standing, alive, version(), waits_for)
        return Explanation(id=job.id, state=job.state.value, reasons=found)

    def quotas(self, caller: Caller) -> QuotaPage:
        """The caller's own quota; for an admin that of every owner with a limit or an active job."""
        caller.require("read")
        limits = self._limits.limits()
        loads = {load.owner: load for load in self._standings.loads()}
        owners = sorted({*limits, *loads, caller.owner}) if caller.is_admin else [caller.owner]
        return QuotaPage(items=[self._quota(owner, limits, loads) for owner in owners])

    def _quota(self, owner: str, limits: dict[str, int], loads: dict[str, OwnerLoad]) -> QuotaView:
        load, setting = loads.get(owner, OwnerLoad(owner, 0, 0)), self._settings.max_running_per_owner
        own = limits.get(owner)
        return QuotaView(
            owner=owner,
            running=load.running,
            queued=load.queued,
            max_running=setting if own is None else own,
            origin="owner" if own is not None else "setting" if setting is not None else None,
        )
