from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from prunectl.errors import Unavailable
from prunectl.jobs.leftovers import ArtifactCollector, LogCollector, UploadCollector
from prunectl.jobs.lookup import upload_name
from prunectl.jobs.memory import MemoryDoorbell, MemoryJobStore, MemoryWorkerStore
from prunectl.jobs.records import Worker
from prunectl.jobs.sweeper import FORGET_SECONDS, Sweeper, alive_within_seconds
from prunectl.settings import Settings
from prunectl.storage import log_name, open_storage, run_name
from support.stores import RESULT, add, claim, get, running

WORKER = Worker("t1", "w1", "h", 1, ("cpu",), 2, "cpu", "0.1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A sweeper over stores in memory, with a clock to turn."""

    def __init__(self, settings: Settings, **more: object) -> None:
        self.clock = Clock()
        self.store, self.workers, self.bell = (
            MemoryJobStore(self.clock),
            MemoryWorkerStore(self.clock),
            MemoryDoorbell(),
        )
        self.settings = settings
        self.sweeper = Sweeper(self.store, self.workers, self.bell, settings, **more)  # type: ignore[arg-type]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, sweep_seconds=15)


def test_a_dead_lease_expires_and_an_idle_slot_is_rung(settings: Settings) -> None:
    bench = Bench(settings, announce=WORKER)
    job = running(bench.store, lease_seconds=60)
    assert bench.sweeper.sweep() == 0
    bench.clock.now += 61
    assert bench.sweeper.sweep() == 1
    assert get(bench.store, job).state == "queued"
    assert bench.bell.rings == []  # nobody serves its queue
    add(bench.store), add(bench.store), add(bench.store)
    bench.sweeper.sweep()
    assert bench.bell.rings == ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("workers", "chance", "swept"),
    [(1, 0.999, 1), (10, 0.999, 1), (11, 0.999, 0), (100, 0.099, 1), (100, 0.11, 0), (1000, 0.0, 1)],
)
def test_a_large_fleet_shares_its_rounds(settings: Settings, workers: int, chance: float, swept: int) -> None:
    bench = Bench(settings, announce=WORKER, chance=lambda: chance)
    for number in range(1, workers):
        bench.workers.announce(replace(WORKER, token=f"other {number}"))
    running(bench.store, lease_seconds=-1)
    assert bench.sweeper.sweep() == swept
    assert len(bench.workers.workers()) == workers  # it shows itself in any case


def test_rounds_come_back_to_those_who_are_left(settings: Settings) -> None:
    bench = Bench(settings, announce=WORKER, chance=lambda: 0.5)
    for number in range(99):
        bench.workers.announce(replace(WORKER, token=f"other {number}"))
    running(bench.store, lease_seconds=60)
    assert bench.sweeper.sweep() == 0
    bench.clock.now += 61  # everyone else has died, and so has the job
    assert bench.sweeper.sweep() == 1


def test_full_workers_are_not_rung(settings: Settings) -> None:
    bench = Bench(settings, announce=WORKER)
    for _ in range(3):
        add(bench.store)
    claim(bench.store), claim(bench.store)
    bench.sweeper.sweep()
    assert bench.bell.rings == []


def test_a_worker_is_shown_dead_and_then_forgotten(settings: Settings) -> None:
    bench = Bench(settings)
    bench.workers.announce(WORKER)
    bench.clock.now += alive_within_seconds(settings) + 1
    bench.sweeper.sweep()
    assert bench.workers.workers(alive_within_seconds=alive_within_seconds(settings)) == []
    assert len(bench.workers.workers()) == 1
    bench.clock.now += FORGET_SECONDS
    bench.sweeper.sweep()
    assert bench.workers.workers() == []


def test_a_bad_round_does_not_end_the_thread(settings: Settings) -> None:
    rounds: list[int] = []
    done = threading.Event()

    class Failing(MemoryJobStore):
        def sweep(self):  # type: ignore[no-untyped-def]
            rounds.append(1)
            if len(rounds) == 1:
                raise Unavailable("the database does not answer")
            if len(rounds) == 2:
                raise RuntimeError("a bug")
            done.set()
            return super().sweep()

    quick = settings.model_copy(update={"sweep_seconds": 0.01})
    chores: list[str] = []
    sweeper = Sweeper(Failing(), MemoryWorkerStore(), MemoryDoorbell(), quick, chores=[lambda: chores.append("done")])
    sweeper.start()
    assert done.wait(5)
    sweeper.stop()
    assert not sweeper.is_alive()
    assert chores == ["done"]


def test_orphan_artifacts_are_collected_and_others_are_not(tmp_path: Path) -> None:
    storage, store = open_storage(str(tmp_path / "storage")), MemoryJobStore()

    def publish(name: str) -> str:
        source = tmp_path / "source"
        source.mkdir()
        (source / "config.json").write_text("{}")
        return storage.publish(str(source), name)

    done = running(store)
    named = run_name(done.id, 1, done.lease.token)
    store.succeed(done.lease, {**RESULT, "artifacts": {"onnx": publish(named) + "/onnx/model.onnx"}})
    older_attempt = run_name(done.id, 0, "f" * 32)
    publish(older_attempt)
    active = running(store)
    in_use = run_name(active.id, 1, active.lease.token)
    publish(in_use)
    unknown = run_name("01hzunknown", 1, "e" * 32)
    publish(unknown)
    half = tmp_path / "storage" / ".tmp-half"
    half.mkdir()
    storage.write("logs/x", b"kept")

    assert ArtifactCollector(store, storage, after_seconds=3600).collect() == []
    removed = ArtifactCollector(store, storage, after_seconds=-10).collect()
    assert sorted(removed) == sorted([older_attempt, unknown, ".tmp-half"])
    assert storage.list("") == sorted([f"{named}/config.json", f"{in_use}/config.json", "logs/x"])


def test_a_moved_storage_loses_nothing(tmp_path: Path) -> None:
    store, source = MemoryJobStore(), tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    done = running(store)
    name = run_name(done.id, 1, done.lease.token)
    uri = open_storage(str(tmp_path / "a home" / "storage")).publish(str(source), name)
    store.succeed(done.lease, {**RESULT, "artifacts": {"checkpoint": uri}})
    (tmp_path / "a home").rename(tmp_path / "moved")
    moved = open_storage(str(tmp_path / "moved" / "storage"))
    assert ArtifactCollector(store, moved, after_seconds=-10).collect() == []
    assert moved.exists(f"{name}/config.json")


def test_logs_go_with_their_job_or_when_their_time_is_over(tmp_path: Path) -> None:
    clock = Clock()
    storage, store = open_storage(str(tmp_path / "storage")), MemoryJobStore(clock)
    active, ended = running(store), running(store)
    store.succeed(ended.lease, RESULT)
    for job_id in (active.id, ended.id, "01hzremoved"):
        storage.append(log_name(job_id, 1), b"a line")
    clock.now += 1000

    def collected(*, after_seconds: float = -10, retention_seconds: float | None = None) -> list[str]:
        return LogCollector(store, storage, after_seconds, retention_seconds).collect()

    assert collected(after_seconds=3600) == []
    assert collected() == ["logs/01hzremoved"]
    assert collected(retention_seconds=2000) == []
    assert collected(retention_seconds=500) == [f"logs/{ended.id}"]
    assert storage.list("logs") == [f"{active.id}/a1.log"]


def test_uploads_that_no_job_names_go(tmp_path: Path) -> None:
    storage, store = open_storage(str(tmp_path / "storage")), MemoryJobStore()
    named, unnamed = "a" * 64, "b" * 64
    for digest in (named, unnamed):
        storage.write(upload_name(digest), b"text")
    (tmp_path / "storage" / "uploads" / "bb" / ".tmp-half").write_bytes(b"te")
    add(store, spec={"evaluation": {"data": f"upload:sha256:{named}/rows.txt"}})
    assert UploadCollector(store, storage, after_seconds=3600).collect() == []
    removed = UploadCollector(store, storage, after_seconds=-10).collect()
    assert sorted(removed) == ["uploads/bb/.tmp-half", upload_name(unnamed)]
    assert storage.exists(upload_name(named))
