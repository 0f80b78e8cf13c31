"""Celery workers of the queue's benchmarks, each with one slot.

``python -m benchmarks.stub_worker ring HOME DATABASE BROKER TIMES`` claims and finishes jobs as a worker does, except
that its runner is not a process but answers at once; it appends a line for each job to the file TIMES: when it ended,
seconds of the claim, seconds of the finish. ``… noop BROKER`` is plain Celery with a task that does nothing.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.surroundings import result
from celery import Celery

from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.jobs.model import Job, Lease
from prunectl.jobs.records import Worker
from prunectl.settings import Settings
from prunectl.storage import open_storage
from prunectl.worker.app import make_worker_app
from prunectl.worker.attempt import Ending, Outcome
from prunectl.worker.report import Received
from prunectl.worker.stop_flag import StopFlag
from prunectl.worker.supervisor import Slot, Supervisor

NOOP_QUEUE = "celery"


class StubbedSupervisor(Supervisor):
    """All of a supervisor but the runner's process."""

    def _run(self, *_: Any) -> Outcome:
        return Outcome(Ending.EXITED, 0, Received(result=result()))


class TimedStore(SqlJobStore):
    """Writes down how long each job's claim and finish took, calls into SQLAlchemy and the driver included."""

    def __init__(self, engine: Any, times: Path) -> None:
        super().__init__(engine)
        self._times = times.open("a", buffering=1)
        self._claimed: dict[str, float] = {}

    def claim(self, *arguments: Any, **named: Any) -> Job | None:
        began = time.perf_counter()
        job = super().claim(*arguments, **named)
        if job is not None:
            self._claimed[job.id] = time.perf_counter() - began
        return job

    def succeed(self, lease: Lease, result: dict[str, Any]) -> bool:
        began = time.perf_counter()
        done = super().succeed(lease, result)
        seconds = time.perf_counter() - began
        self._times.write(f"{time.time()} {self._claimed.pop(lease.job_id)} {seconds}\n")
        return done


def serve_one_in(settings: Settings, name: str, times: Path) -> Callable[[], object]:
    made: dict[int, Supervisor] = {}

    def serve_one() -> object:
        if os.getpid() not in made:
            made[os.getpid()] = StubbedSupervisor(
                TimedStore(make_engine(settings.database), times),
                open_storage(settings.storage),
                CeleryDoorbell(make_app(settings)),
                settings,
                Slot(name, ("cpu",)),
                StopFlag(),
            )
        return made[os.getpid()].serve_one()

    return serve_one


def noop_app(broker: str) -> Celery:
    """Celery as its introduction has it, without results."""
    app = Celery("noop", broker=broker, set_as_current=False)
    app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)

    @app.task(name="noop")
    def noop() -> None:
        return

    return app


def main(arguments: list[str]) -> int:
    what, *rest = arguments
    name = f"bench-{os.getpid()}"
    if what == "noop":
        app, queue = noop_app(rest[0]), NOOP_QUEUE
    else:
        home, database, broker, times = rest
        settings = Settings(home=Path(home), database_url=database, broker_url=broker, log_level="error")
        app, queue = make_worker_app(settings, serve_one_in(settings, name, Path(times))), "cpu"
        SqlWorkerStore(make_engine(database)).announce(
            Worker(uuid.uuid4().hex, name, "bench", os.getpid(), ("cpu",), 1, "cpu", "0")
        )
    worker = app.Worker(
        queues=[queue],
        concurrency=1,
        pool="prefork",
        hostname=f"{name}@bench",
        loglevel="ERROR",
        optimization="fair",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
