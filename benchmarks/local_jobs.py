"""Real jobs on this machine without a server: the job service over its in-memory twins, and the shipped supervisor.

A job is submitted, refused or queued, claimed, run in a runner process and settled as everywhere; only who tells the
supervisor that there is work is a loop here.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
for _part in ("tests", "core", "worker", "api", "cli"):
    if str(ROOT / _part) not in sys.path:
        sys.path.insert(0, str(ROOT / _part))


class LocalJobs:
    """A queue in memory; ``home`` is a directory of its own. Raises nothing of a job's own: a job that fails says so."""

    def __init__(self, home: Path, *, threads: int = 1) -> None:
        from prunectl.jobs.service import Caller
        from prunectl.settings import Settings
        from support.service import memory_services

        self.home, self._threads = home, threads
        self.settings = Settings(home=home, embedded=True)
        self.storage = Path(self.settings.storage)
        self.storage.mkdir(parents=True, exist_ok=True)
        self._services = memory_services(self.settings)
        self._caller = Caller("local", frozenset({"submit"}))

    def submit(self, model: Path, recipe: dict[str, Any], evaluation: dict[str, Any], **more: Any) -> str:
        """The job's id. Raises a PrunectlError, or pydantic's ValidationError, where it is refused."""
        from prunectl.schemas import JobCreate

        environment = {"cwd": str(self.home), "hf_hub_offline": True}
        body = {"model": str(model), "recipe": recipe, "evaluation": evaluation, "environment": environment, **more}
        return self._services.jobs.submit(self._caller, JobCreate.model_validate({"retries": 0, **body})).job.id

    def run(self, *, workers: int = 1, tell: Callable[[Any], None] | None = None) -> dict[str, Any]:
        """Every queued job to its end, ``workers`` at a time; id -> the `prunectl.jobs.model.Job` as it is then."""
        os.environ["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)  # for the runners
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"
        ended: dict[str, Any] = {}
        threads = [threading.Thread(target=self._serve, args=(slot,)) for slot in range(workers)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
            self._tell(ended, tell)
        self._tell(ended, tell)
        return ended

    def result(self, job_id: str) -> dict[str, Any]:
        """Of a job that has succeeded."""
        job = self._services.store.get(job_id)
        assert job is not None and job.result is not None, job
        return job.result

    def _serve(self, slot: int) -> None:
        """One slot of a worker, until no job is queued or running."""
        from prunectl.jobs.memory import MemoryDoorbell
        from prunectl.storage import open_storage
        from prunectl.worker.runner_process import TEMPLATE
        from prunectl.worker.stop_flag import StopFlag
        from prunectl.worker.supervisor import Slot, Supervisor

        supervisor = Supervisor(
            self._services.store,
            open_storage(self.settings.storage),
            MemoryDoorbell(),
            self.settings,
            Slot(f"local-{slot}", ("cpu", "gpu"), slot, max(1, len(os.sched_getaffinity(0)) // self._threads)),
            StopFlag(),
            template=TEMPLATE,
            searches=self._services.searches,
        )
        try:
            while any(not job.state.terminal for job in self._jobs()):
                if not supervisor.serve_one():
                    time.sleep(0.1)  # another slot's job may wake a search
        finally:
            supervisor.close()

    def _jobs(self) -> list[Any]:
        store: Any = self._services.store
        with store.lock:
            return list(store._jobs.values())

    def _tell(self, ended: dict[str, Any], tell: Callable[[Any], None] | None) -> None:
        for job in self._jobs():
            if job.state.terminal and job.id not in ended:
                ended[job.id] = job
                if tell is not None:
                    tell(job)


def checkpoint_of(job: Any) -> Path:
    """The directory that a succeeded job published."""
    return Path(unquote(urlsplit(job.result["artifacts"]["checkpoint"]).path))
