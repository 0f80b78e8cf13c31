"""Each kind of fault meets a real pruning job: tiny seeded model, the shipped worker and pipeline, a proof at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import psutil
import pytest

from prunectl.db import migrate
from prunectl.jobs.model import Job, JobState
from support import models
from support.faults import assert_nothing_lost, assert_scratch_can_go, fill, small_disk
from support.fleet import CLOCKS, Fleet, descendants, until
from support.proof import largest_difference
from support.servers import PostgresServer, RedisServer, alive, kill_hard
from support.stores import new_job

WHOLE = ("config.json", "model.safetensors", "prunectl.json", "SHA256SUMS", "README.md")
STAGES = ("fetch", "baseline", "score", "prune", "save", "reload", "evaluate", "benchmark")
STAGE_SECONDS = 120.0


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.build(tmp_path_factory.mktemp("zoo") / "tiny", "bert", "fill-mask", layers=3)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server
    finally:
        server.close()


class Real:
    """Workers that prune, on Redis and PostgreSQL of their own, and one recipe."""

    def __init__(self, home: Path, original: Path, postgres: PostgresServer, storage: str | None = None) -> None:
        self.original, self.postgres, self.redis = original, postgres, RedisServer()
        url = postgres.url("postgres")
        migrate.downgrade(url, "base")
        migrate.upgrade(url)
        self.fleet = Fleet(home, database_url=url, broker_url=self.redis.url, storage_url=storage)
        self.fleet.servers_were_killed = True

    def submit(self, **changed: object) -> Job:
        spec = {
            "model": str(self.original),
            "recipe": {"heads": 0.5, "ffn": 0.5},
            "evaluation": {"max_samples": 48, "bench_seq": 16},
            "tags": {},
            "environment": {"cwd": str(self.fleet.settings.home)},
        }
        [added] = self.fleet.store.add([new_job(spec=spec, model_identity="", **changed)])
        self.fleet.bell.ring("cpu")
        return added.job

    def at(self, job: Job, stage: str) -> int:
        """Wait until the job is in ``stage``, or just beyond; the runner's pid."""
        late_enough = STAGES[STAGES.index(stage) :]
        until(lambda: self.fleet.get(job).stage in late_enough, f"stage {stage}", STAGE_SECONDS)
        return self.working_on(job)[0]

    def working_on(self, job: Job | None = None) -> list[int]:
        """Pids of all that works on ``job``, or on any job of ours: its runner first, then what that started."""
        scratch = str(self.fleet.settings.home / "scratch" / (job.id if job else ""))
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(scratch) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return sorted(found)

    def prove(self, job: Job, *, attempts: int, failures: int) -> None:
        """It succeeded once, its checkpoint is whole, and computes what the masked original computes."""
        [ended] = assert_nothing_lost(self.fleet, [job], seconds=300, whole=WHOLE)
        assert (ended.attempt, ended.failures) == (attempts, failures)
        assert ended.result is not None
        checkpoint = Path(unquote(urlparse(ended.result["artifacts"]["checkpoint"]).path))
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=checkpoint, check=True)
        assert largest_difference(self.original, checkpoint) <= 1e-5
        until(lambda: not self.working_on(job), "what worked on it to end", 10)

    def close(self) -> None:
        try:
            self.fleet.close()
        finally:
            self.redis.kill()
        assert self.working_on() == []
        assert_scratch_can_go(self.fleet.settings.home)


@pytest.fixture
def real(tmp_path: Path, original: Path, postgres: PostgresServer) -> Iterator[Real]:
    found = Real(tmp_path, original, postgres)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.parametrize(
    ("victim", "stage"), [("worker", "baseline"), ("pool process", "reload"), ("runner", "benchmark")]
)
def test_killed(real: Real, victim: str, stage: str) -> None:
    worker = real.fleet.start(real=True)
    real.fleet.pools_were_killed = True
    job = real.submit()
    real.at(job, stage)
    if stage == "reload":
        until(lambda: len(real.working_on(job)) > 1, "the reload check's process", 60)
    involved = real.working_on(job)
    [pool] = [pid for pid in descendants(worker.pid) if set(involved) & set(descendants(pid)) and pid not in involved]
    kill_hard({"worker": worker.pid, "pool process": pool, "runner": involved[0]}[victim])
    until(lambda: not any(alive(pid) for pid in involved), "its runner, and what that started, to die", 10)
    if victim == "worker":
        real.fleet.start(real=True)
    real.prove(job, attempts=2, failures=1)


def test_redis_killed(real: Real) -> None:
    real.fleet.start(real=True)
    job = real.submit()
    real.at(job, "score")
    real.redis.kill()
    waiting = real.submit(priority=-1)
    time.sleep(2)
    real.redis.start()
    real.prove(job, attempts=1, failures=0)
    real.prove(waiting, attempts=1, failures=0)


def test_postgresql_killed(real: Real) -> None:
    real.fleet.start(real=True)
    job = real.submit()
    real.at(job, "baseline")
    real.postgres.kill()
    real.postgres.start()
    real.prove(job, attempts=1, failures=0)


def test_frozen_beyond_its_lease(real: Real) -> None:
    frozen = real.fleet.start(real=True)
    job = real.submit()
    real.at(job, "reload")
    pids = [frozen.pid, *descendants(frozen.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(CLOCKS["lease_seconds"] + 1)
    real.fleet.start(real=True)
    until(lambda: real.fleet.get(job).state.terminal, "the other worker", 240)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    time.sleep(CLOCKS["lease_seconds"])
    real.prove(job, attempts=2, failures=1)


def test_stopped_and_cancelled(real: Real) -> None:
    worker = real.fleet.start(real=True)
    job, unwanted = real.submit(priority=1), real.submit()
    real.at(job, "evaluate")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert real.working_on() == []
    assert (real.fleet.get(job).state, real.fleet.get(job).failures) == (JobState.QUEUED, 0)
    real.fleet.start(real=True)
    real.prove(job, attempts=2, failures=0)
    real.at(unwanted, "reload")
    real.fleet.store.cancel(unwanted.id)
    assert_nothing_lost(real.fleet, [unwanted], expected={unwanted.id: JobState.CANCELLED})
    until(lambda: not real.working_on(unwanted), "its processes to end", 10)


def test_hanging_and_out_of_memory(real: Real) -> None:
    real.fleet.start(real=True)
    hanging = real.submit(timeout_seconds=45, priority=2)
    os.kill(real.at(hanging, "baseline"), signal.SIGSTOP)
    starved = real.submit(max_failures=0, priority=1)
    runner = real.at(starved, "baseline")
    mapped = psutil.Process(runner).memory_info().vms
    psutil.Process(runner).rlimit(psutil.RLIMIT_AS, (mapped // 2, mapped // 2))  # not one page more
    healthy = real.submit()
    ended = assert_nothing_lost(
        real.fleet,
        [hanging, starved],
        seconds=240,
        expected={hanging.id: JobState.FAILED, starved.id: JobState.FAILED},
    )
    assert [job.failure.code for job in ended if job.failure][0] == "timeout"
    assert real.fleet.get(starved).failure is not None
    real.prove(healthy, attempts=1, failures=0)


def test_no_space_for_the_checkpoint(tmp_path: Path, original: Path, postgres: PostgresServer) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        real = Real(tmp_path, original, postgres, storage=str(disk / "storage"))
        try:
            real.fleet.start(real=True)
            ballast = fill(disk)
            job = real.submit(max_failures=0)
            [ended] = assert_nothing_lost(real.fleet, [job], seconds=240, expected={job.id: JobState.FAILED})
            assert ended.failure is not None
            assert ended.failure.code == "disk_full"
            ballast.unlink()
            real.fleet.store.retry(job.id)
            real.fleet.bell.ring("cpu")
            until(lambda: real.fleet.get(job).state.terminal, "the second try", 240)
            assert real.fleet.get(job).state is JobState.SUCCEEDED
        finally:
            real.close()
