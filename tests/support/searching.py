"""A greedy search on one slot: a real supervisor and real runners, stores in memory, a model of three tiny layers."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from os import kill
from pathlib import Path
from typing import Any

from prunectl.jobs.caller import Caller
from prunectl.jobs.intake import Admitted, new_job_of
from prunectl.jobs.memory import MemoryDoorbell, MemoryJobStore
from prunectl.jobs.memory_searches import MemorySearchStore
from prunectl.jobs.memory_sweeps import MemorySweepStore
from prunectl.jobs.model import Job, JobState
from prunectl.jobs.searches import is_search
from prunectl.schemas import JobCreate
from prunectl.settings import Settings
from prunectl.storage import log_name, open_storage
from prunectl.worker.stop_flag import StopFlag
from prunectl.worker.supervisor import Slot, Supervisor
from prunectl.zoo.resolve import Located
from support.models import build
from support.pipeline import upload

LAYERS = 3


class Search:
    """One home with one worker's slot; `submit` searches, `finish` serves until they have ended."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.settings = Settings(home=home, embedded=True, lease_seconds=60.0, heartbeat_seconds=0.1)
        self.store = MemoryJobStore()
        self.searches = MemorySearchStore(self.store, MemorySweepStore(self.store))
        self.storage = open_storage(self.settings.storage)
        self.bell = MemoryDoorbell()
        self.supervisor = Supervisor(
            self.store, self.storage, self.bell, self.settings, Slot("w1", ("cpu",)), StopFlag(), searches=self.searches
        )
        self.model = build(home / "model", "bert", "text-classification", layers=LAYERS)
        rows = [{"text": f"{'good' if n % 2 else 'bad'} words number {n} of many", "label": n % 2} for n in range(96)]
        self.data = upload(home, "\n".join(map(json.dumps, rows)), "rows.jsonl")

    def submit(self, **recipe: Any) -> Job:
        evaluation = {"data": self.data, "max_samples": 24, "bench_seq": 16, "max_length": 16}
        trained = {"recover_epochs": 2, "recover_rate": 1e-3, "recover_data": self.data}
        body = JobCreate.model_validate(
            {
                "model": str(self.model),
                "recipe": {**({} if recipe.get("recover") == "none" else trained), **recipe},
                "evaluation": evaluation,
                "environment": {"cwd": str(self.settings.home)},
            }
        )
        located = Located(str(self.model), "directory", self.model, None, None, "directory:model")
        admitted = Admitted(body, located, "cpu", None, None)
        [added] = self.store.add([new_job_of(Caller("ada", frozenset({"submit"})), admitted)])
        return added.job

    def finish(self, job: Job, *, kill_at: tuple[str, int] | None = None) -> Job:
        """Serve until ``job`` has ended. ``kill_at``: (a stage, how often) a candidate's runner is killed in it."""
        left = [0 if kill_at is None else kill_at[1]]
        done = threading.Event()

        def strike() -> None:
            struck: set[tuple[str, int]] = set()
            while left[0] and kill_at is not None and not done.wait(0.005):
                for other in self.store.all():
                    here = (other.id, other.attempt)
                    at_work = other.state is JobState.RUNNING and other.stage == kill_at[0] and not is_search(other)
                    if at_work and here not in struck and (pid := self.runner(other)):
                        struck.add(here)
                        with suppress(ProcessLookupError):
                            kill(pid, signal.SIGKILL)
                            left[0] -= 1

        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        until = time.monotonic() + 300
        while not self.get(job).state.terminal and time.monotonic() < until:
            if not self.supervisor.serve_one():
                time.sleep(0.05)
        done.set()
        thread.join(5)
        return self.get(job)

    def get(self, job: Job) -> Job:
        found = self.store.get(job.id)
        assert found is not None
        return found

    def candidates(self) -> list[Job]:
        return [job for job in self.store.all() if not is_search(job)]

    def runner(self, job: Job) -> int | None:
        name = log_name(job.id, job.attempt)
        text = self.storage.read(name).decode() if self.storage.exists(name) else ""
        found = re.search(r"process (\d+)", text)
        return int(found[1]) if found else None

    def successes(self) -> Counter[tuple[int, ...]]:
        """How often each set of removed layers was trained to its end."""
        return Counter(
            tuple(job.spec["recipe"]["layers"]) for job in self.candidates() if job.state is JobState.SUCCEEDED
        )
