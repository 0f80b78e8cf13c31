"""A supervisor of one slot with stores in memory, and runners that prune nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunectl.jobs.memory import MemoryDoorbell, MemoryJobStore
from prunectl.jobs.model import Job, JobState
from prunectl.settings import Settings
from prunectl.storage import log_name, open_storage
from prunectl.worker.stop_flag import StopFlag
from prunectl.worker.supervisor import Slot, Supervisor
from support.queue_stub import RUNNER, TEMPLATE
from support.servers import alive
from support.stores import add, get


class Bench:
    """A supervisor of one slot and everything around it."""

    def __init__(self, home: Path, store: MemoryJobStore | None = None, *, warm: bool = False, **settings: Any) -> None:
        clocks = {"lease_seconds": 4.0, "heartbeat_seconds": 0.1, "cancel_grace_seconds": 0.5}
        self.settings = Settings(home=home, **{**clocks, **settings})
        self.store = store or MemoryJobStore()
        self.storage = open_storage(self.settings.storage)
        self.bell = MemoryDoorbell()
        self.stop = StopFlag()
        self.supervisor = Supervisor(
            self.store,
            self.storage,
            self.bell,
            self.settings,
            Slot("w1", ("cpu",)),
            self.stop,
            runner=RUNNER,
            template=TEMPLATE if warm else None,
        )

    def job(self, stub: str, **changed: Any) -> Job:
        return add(self.store, spec={"model": "m", "recipe": {}, "evaluation": {}, "tags": {"stub": stub}}, **changed)

    def serve(self, stub: str, *, meanwhile: Callable[[Job, int], None] | None = None, **changed: Any) -> Job:
        """Serve one job; ``meanwhile`` is called with it and its runner's pid once that is at work."""
        job = self.job(stub, **changed)
        thread = None
        if meanwhile is not None:
            thread = threading.Thread(target=lambda: meanwhile(get(self.store, job), self.runner_pid(job)))
            thread.start()
        assert self.supervisor.serve_one()
        if thread is not None:
            thread.join(10)
        after = get(self.store, job)
        scratch = self.settings.home / "scratch"
        assert list(scratch.iterdir()) == [], "scratch is removed, however it ends"
        assert not alive(self.runner_pid(job)), "the runner is gone"
        if after.state is not JobState.SUCCEEDED:
            assert self.storage.list(f"runs/{job.id}") == [], "nothing stays published"
        return after

    def serve_in_background(self) -> None:
        """Serve the best queued job in a thread that `join` waits for."""
        self._thread = threading.Thread(target=self.supervisor.serve_one)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def runner_pid(self, job: Job) -> int:
        name = f"starts/{job.id}"
        give_up = time.monotonic() + 10
        while not self.storage.size(name):
            assert time.monotonic() < give_up, "the runner did not start"
            time.sleep(0.01)
        return int(self.storage.read(name).split()[-1])

    def log(self, job: Job) -> str:
        return self.storage.read(log_name(job.id, 1)).decode()
