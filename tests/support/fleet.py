"""Real workers over a real broker and database, with runners that prune nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.jobs.model import Job
from prunectl.settings import Settings
from prunectl.storage import log_name, open_storage
from support.queue_stub import python_path
from support.servers import alive
from support.stores import new_job

CLOCKS = {"lease_seconds": 3.0, "heartbeat_seconds": 0.5, "sweep_seconds": 1.0, "cancel_grace_seconds": 1.0}
"""Short, so that a dead worker is noticed within seconds."""


class Fleet:
    """Workers of one service; `close` ends whatever still runs and checks that nothing is left."""

    def __init__(
        self,
        home: Path,
        *,
        database_url: str,
        broker_url: str,
        storage_url: str | None = None,
        celery_events: bool = False,
    ) -> None:
        urls = {"database_url": database_url, "broker_url": broker_url, "storage_url": storage_url}
        self.settings = Settings(home=home, **urls, celery_events=celery_events, **CLOCKS)
        engine = make_engine(database_url)
        self.store, self.worker_rows = SqlJobStore(engine), SqlWorkerStore(engine)
        self.storage = open_storage(self.settings.storage)
        self.bell = CeleryDoorbell(make_app(self.settings))
        self.workers: list[subprocess.Popen[bytes]] = []
        self._engine = engine
        self._log = (home / "workers.log").open("ab")
        self._seen: set[int] = set()
        self.pools_were_killed = False
        """Celery tells of a killed pool process with a traceback; any other traceback in a worker's log is a fault."""
        self.servers_were_killed = False
        """Celery tells of a broker that went away with a traceback, too."""

    def environment(self) -> dict[str, str]:
        """For processes of this service."""
        settings = self.settings
        return {
            **os.environ,
            "PYTHONPATH": python_path(),
            "PRUNECTL_HOME": str(settings.home),
            "PRUNECTL_DATABASE_URL": settings.database,
            "PRUNECTL_BROKER_URL": settings.broker,
            "PRUNECTL_STORAGE_URL": settings.storage,
            "PRUNECTL_CELERY_EVENTS": str(int(settings.celery_events)),
            **{f"PRUNECTL_{clock.upper()}": str(seconds) for clock, seconds in CLOCKS.items()},
        }

    def start(self, slots: int = 1, name: str = "", *, real: bool = False, **changed: str) -> subprocess.Popen[bytes]:
        """A worker that has shown itself; ``real``: the shipped one, which prunes. ``changed``: of its environment."""
        environment = {**self.environment(), "PRUNECTL_EMBEDDED": "1" if real else "", **changed}
        if real:
            command = [sys.executable, "-P", "-m", "prunectl.cli.main", "worker", "--slots", str(slots)]
            command += ["--name", name] if name else []
        else:
            command = [
                sys.executable,
                "-m",
                "support.queue_stub",
                "worker",
                "cpu",
                str(slots),
                *([name] if name else []),
            ]
        worker = subprocess.Popen(
            command, env=environment, cwd=self.settings.home, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self.workers.append(worker)
        until(lambda: any(row.pid == worker.pid for row in self.worker_rows.workers()), f"worker {worker.pid}")
        return worker

    def submit(self, *stubs: str, pause: str = "", **changed: Any) -> list[Job]:
        """Queue a job for each of ``stubs`` and ring. ``pause``: where its first attempt stops; see `queue_stub`."""
        news = [
            new_job(
                spec={"model": "m", "recipe": {}, "evaluation": {}, "tags": {"stub": stub, "pause": pause}}, **changed
            )
            for stub in stubs
        ]
        added = self.store.add(news)
        self.bell.ring("cpu", len(news))
        return [item.job for item in added]

    def get(self, job: Job) -> Job:
        found = self.store.get(job.id)
        assert found is not None
        return found

    def wait(self, jobs: Iterable[Job], seconds: float = 20.0) -> list[Job]:
        """The jobs, all ended."""
        jobs = list(jobs)
        until(lambda: all(self.get(job).state.terminal for job in jobs), "the jobs", seconds)
        return [self.get(job) for job in jobs]

    def starts(self, job: Job) -> list[int]:
        """Pids of the job's runners, one a start."""
        name = f"starts/{job.id}"
        pids = [int(pid) for pid in self.storage.read(name).split()] if self.storage.exists(name) else []
        self._seen.update(pids)
        return pids

    def runner(self, job: Job) -> int:
        """Pid of its running runner."""
        until(lambda: bool(self.starts(job)), "the runner")
        return self.starts(job)[-1]

    def log(self, job: Job) -> str:
        name = log_name(job.id, self.get(job).attempt)
        return self.storage.read(name).decode() if self.storage.exists(name) else ""

    def close(self) -> None:
        trees = [pid for worker in self.workers for pid in (worker.pid, *descendants(worker.pid))]
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.wait(15)
            except subprocess.TimeoutExpired:
                worker.kill()
                raise
        until(lambda: not any(alive(pid) for pid in [*trees, *self._seen]), "the processes to end", 10)
        self._log.close()
        self._engine.dispose()
        output = (self.settings.home / "workers.log").read_text()
        assert self.pools_were_killed or self.servers_were_killed or "Traceback" not in output, output


def descendants(pid: int) -> list[int]:
    """Pids of its children, theirs, and so on."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [found for child in children for found in (child, *descendants(child))]


def until(holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)
