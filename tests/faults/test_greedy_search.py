"""A greedy search of six layers down to three by three workers, of which one is killed twice, on a trained classifier."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prunectl.db import migrate
from prunectl.db.search_store import SqlSearchStore
from prunectl.jobs.lookup import upload_name
from prunectl.jobs.model import Job, JobState
from prunectl.pruning.greedy import most_trainings
from prunectl.schemas import JobCreate, Result, job_digest
from support import minilm_classifier as classifier
from support.fleet import Fleet, until
from support.servers import RedisServer, kill_hard
from support.stores import new_job

SIX, GONE, WORKERS = 6, 3, 3
SECONDS = 900.0


class Run:
    """One fleet of three workers, each with one slot, and one search."""

    def __init__(self, home: Path, model: Path, train: str, held_out: str) -> None:
        home.mkdir()
        self.redis = RedisServer()
        url = f"sqlite:///{home / 'prunectl.db'}"
        migrate.upgrade(url)
        self.fleet = Fleet(home, database_url=url, broker_url=self.redis.url)
        self.fleet.pools_were_killed = True
        self.searches = SqlSearchStore(self.fleet._engine)
        uploads = {name: self._upload(text, name) for name, text in (("train.jsonl", train), ("held.jsonl", held_out))}
        body = JobCreate.model_validate(
            {
                "model": str(model),
                "recipe": {"greedy_layers": GONE, "recover": "finetune", "recover_epochs": 1}
                | {"recover_data": uploads["train.jsonl"], "recover_rate": 1e-4},
                "evaluation": {"data": uploads["held.jsonl"], "calibration": uploads["train.jsonl"]}
                | {"max_length": classifier.LENGTH, "bench_seq": 32},
                "environment": {"cwd": str(home)},
            }
        )
        digest = job_digest("ada", "", body)
        spec = body.model_dump(mode="json", exclude={"force"})
        self.workers = [self._worker(number) for number in range(WORKERS)]
        self.started = time.monotonic()
        [added] = self.fleet.store.add([new_job(spec=spec, model_identity="", digest=digest, max_failures=5)])
        self.job = added.job
        self.fleet.bell.ring("cpu")

    def _worker(self, number: int) -> subprocess.Popen[bytes]:
        """A worker on cores of its own, as far as there are enough: a runner's threads are its cores by its slots."""
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // WORKERS)
        try:
            os.sched_setaffinity(0, {cores[(number * share + place) % len(cores)] for place in range(share)})
            return self.fleet.start(real=True, name=f"w{number}")
        finally:
            os.sched_setaffinity(0, cores)

    def _upload(self, text: str, name: str) -> str:
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.fleet.storage.write(upload_name(digest), text.encode())
        return f"upload:sha256:{digest}/{name}"

    def candidates(self) -> list[Job]:
        found = self.searches.candidates(self.job.id)
        return [] if found is None else found.jobs

    def kill(self, number: int, *, after: int) -> None:
        """Kill the worker while it trains a candidate, once ``after`` candidates are done; another takes its name."""

        def at_work() -> bool:
            done = sum(job.state is JobState.SUCCEEDED for job in self.candidates())
            trains = (job.worker == f"w{number}" and job.stage == "recover" for job in self.candidates())
            return done >= after and any(trains)

        until(at_work, f"w{number} to train", SECONDS)
        kill_hard(self.workers[number].pid)
        self.workers[number] = self._worker(number)

    def finish(self) -> Result:
        [ended] = self.fleet.wait([self.job], SECONDS)
        assert ended.state is JobState.SUCCEEDED, (ended.failure, self.fleet.log(ended))
        self.seconds = time.monotonic() - self.started
        return Result.model_validate(ended.result)

    def close(self) -> None:
        try:
            self.fleet.close()
        finally:
            self.redis.kill()


def said(result: Result) -> list[Any]:
    """All that decided the search, and what came of it."""
    assert result.search is not None
    steps = [(s.layer, s.held_out.after, [(c.layer, c.value) for c in s.candidates]) for s in result.search.steps]
    return [*steps, result.structure.removed_layers, result.metrics["eval_loss"].after]


@pytest.mark.timeout(2400)
def test_three_workers_of_which_one_is_killed_twice(minilm: Path, tmp_path: Path) -> None:
    train, held_out = classifier.texts(160, 240)
    model = classifier.fit(minilm, tmp_path / "model", train)
    data = (classifier.jsonl(train), classifier.jsonl(held_out))
    found: dict[str, Result] = {}
    for name in ("undisturbed", "killed"):
        run = Run(tmp_path / name, model, *data)
        try:
            if name == "killed":
                run.kill(0, after=2)
                run.kill(0, after=7)
            found[name] = run.finish()
            jobs = run.candidates()
            trained = Counter(tuple(job.spec["recipe"]["layers"]) for job in jobs if job.state is JobState.SUCCEEDED)
            ends = {
                job.id: sum(e.data["state"] == "succeeded" for e in run.fleet.store.events(job.id) if e.kind == "state")
                for job in jobs
            }
            assert len(jobs) == len(trained) == 15 == most_trainings_of_six()
            assert set(trained.values()) == set(ends.values()) == {1}, "no candidate was trained twice"
            lost = sum(job.failures for job in jobs)
            assert lost == (2 if name == "killed" else 0)
            search = found[name].search
            assert search is not None
            sys.stderr.write(
                f"{name}: {len(jobs)} trainings, {lost} cut off and resumed, {search.cpu_seconds:.0f} CPU seconds of the "
                f"trainings that ended, {run.seconds:.0f} s wall-clock\n"
            )
        finally:
            run.close()
    assert said(found["killed"]) == said(found["undisturbed"])


def most_trainings_of_six() -> int:
    from prunectl.pruning.depth import Stack

    return most_trainings([Stack(SIX, 0, ("num_hidden_layers",), "encoder", "encoder.layer", False)], GONE, None)
