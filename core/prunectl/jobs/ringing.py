"""How often to ring, and ringing that often."""

from __future__ import annotations

from prunectl.jobs.ports import Doorbell, JobStore, WorkerStore

MAX_RINGS = 64


def ring_count(claimable: int, idle_slots: int, busy_slots: int) -> int:
    """Rings for ``claimable`` jobs: one for each slot that can start one, and one for each busy slot besides.

    A busy worker may hold one message a slot that it won't look at before its job ends; the extra rings reach the idle.
    """
    if claimable < 1:
        return 0
    return min(MAX_RINGS, max(1, min(claimable, idle_slots) + busy_slots))


class Ringer:
    """Rings for new jobs as often as the slots that are alive can use."""

    def __init__(self, store: JobStore, workers: WorkerStore, doorbell: Doorbell, alive_within_seconds: float) -> None:
        self._store = store
        self._workers = workers
        self._doorbell = doorbell
        self._alive_within_seconds = alive_within_seconds

    def ring(self, queue: str, jobs: int) -> None:
        """Tell the workers of ``queue`` that it has ``jobs`` more."""
        alive = self._workers.workers(alive_within_seconds=self._alive_within_seconds)
        slots = sum(worker.slots for worker in alive if queue in worker.queues)
        _, running = self._store.queue_counts(at_most=1).get(queue, (0, 0))
        busy = min(running, slots)
        self._doorbell.ring(queue, ring_count(jobs, slots - busy, busy))
