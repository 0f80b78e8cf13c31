"""The sweeper: expires dead leases, rings where work waits beside idle slots, and shows that its process is alive.

It runs in every worker and in the API, with no leader: each of its writes is one guarded UPDATE, so any number may run
at once.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence

from prunectl.errors import PrunectlError
from prunectl.jobs.ports import Doorbell, JobEvents, JobStore, NoJobEvents, SearchStore, WorkerStore
from prunectl.jobs.records import Worker
from prunectl.jobs.ringing import MAX_RINGS, ring_count
from prunectl.settings import Settings

logger = logging.getLogger(__name__)

ALIVE_SWEEPS = 3
"""A worker shows itself at each sweep; after so many without a sign it counts as dead."""
FORGET_SECONDS = 3600.0
"""A dead worker's row is kept so long, for ``prunectl workers`` to show."""
ENOUGH_ROUNDS = 10
"""In a larger fleet than this each process leaves most rounds to others, so that about so many happen in the time of one.

Nobody has to know who does them: that none happens in that time has a chance of 1 in 20,000, and then one does in the next.
"""
CHORE_SECONDS = 3600.0
"""Between two rounds of collecting what is left over."""


def alive_within_seconds(settings: Settings) -> float:
    return ALIVE_SWEEPS * settings.sweep_seconds


class Sweeper(threading.Thread):
    """A daemon thread that sweeps every ``settings.sweep_seconds`` +-20 %.

    ``announce`` is the worker process it runs in, if any; ``chores`` run about once an hour, and first after one sweep.
    """

    def __init__(
        self,
        store: JobStore,
        workers: WorkerStore,
        doorbell: Doorbell,
        settings: Settings,
        *,
        announce: Worker | None = None,
        chores: Sequence[Callable[[], object]] = (),
        events: JobEvents | None = None,
        searches: SearchStore | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._chance = chance
        self._searches = searches
        self._store = store
        self._workers = workers
        self._doorbell = doorbell
        self._settings = settings
        self._announce = announce
        self._chores = chores
        self._events = events or NoJobEvents()
        self._ended = threading.Event()
        self._until_chores = settings.sweep_seconds

    def stop(self, *, wait_seconds: float = 5.0) -> None:
        self._ended.set()
        if self.is_alive():
            self.join(wait_seconds)

    def run(self) -> None:
        while True:
            self._try(self.sweep)
            pause = self._settings.sweep_seconds * random.uniform(0.8, 1.2)  # many processes must not sweep in step
            if self._ended.wait(pause):
                return
            self._until_chores -= pause
            if self._until_chores <= 0:
                self._until_chores = CHORE_SECONDS
                for chore in self._chores:
                    self._try(chore)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except PrunectlError as error:
            logger.warning("sweeper: %s", error.message)
        except Exception:
            logger.exception("sweeper: this round failed")

    def sweep(self) -> int:
        """Show that we are alive, and do a round or leave it to others; the number of dead leases that it expired."""
        if self._announce is not None:
            self._workers.announce(self._announce)
        alive = self._workers.count_alive(alive_within_seconds(self._settings))
        if self._chance() * alive >= ENOUGH_ROUNDS:
            return 0
        swept = self._store.sweep()
        for job in swept:
            logger.warning("job %s: lease of attempt %d expired, now %s", job.id, job.attempt, job.state)
            self._events.ended(job)
        if self._searches is not None:
            self._searches.wake()
        self._ring()
        self._workers.forget_silent(FORGET_SECONDS)
        return len(swept)

    def _ring(self) -> None:
        counts = self._store.queue_counts(at_most=MAX_RINGS)
        if not any(ready for ready, _ in counts.values()):
            return
        alive = self._workers.workers(alive_within_seconds=alive_within_seconds(self._settings))
        for queue, (ready, busy) in counts.items():
            slots = sum(worker.slots for worker in alive if queue in worker.queues)
            idle = max(0, slots - busy)
            if ready and idle:
                self._doorbell.ring(queue, ring_count(ready, idle, min(busy, slots)))
