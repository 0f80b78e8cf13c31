"""The supervisor's parts, each alone. Nothing here starts a runner."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prunectl.errors import DiskFull, FailureClass, HubUnavailable, OutOfMemory, Unavailable
from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.model import Failure
from prunectl.storage import open_storage
from prunectl.worker.assignment import Assignment, Envelope
from prunectl.worker.failures import failure_from_wire, failure_of, failure_of_exit
from prunectl.worker.lease_keeper import LeaseKeeper
from prunectl.worker.log_pump import LogPump
from prunectl.worker.report import Received, Report
from prunectl.worker.runner_process import runner_environment
from prunectl.worker.scratch import collect_scratch, scratch_directory
from prunectl.worker.stop_flag import HURRYING, RUNNING, STOPPING, StopFlag
from support.queue_stub import python_path
from support.servers import alive
from support.stores import running

ASSIGNMENT = Assignment(
    "01hz", 2, "abcdef0123456789", {"tags": {}}, "dir:/m", "m", "cpu", "/s", "/scratch", 2, ("/zoo",)
)


def test_an_assignment_survives_the_way_to_its_runner() -> None:
    envelope = Envelope(ASSIGNMENT, 7, 42)
    assert Envelope.from_json(envelope.to_json()) == envelope
    newer = json.loads(envelope.to_json())
    newer["assignment"]["of_a_later_version"] = 1
    assert Envelope.from_json(json.dumps(newer).encode()) == envelope
    assert ASSIGNMENT.run_name == "runs/01hz/a2-abcdef01"


def test_a_report_arrives_in_pieces() -> None:
    read, write = os.pipe()
    report = Report(write)
    with report.stage("fetch") as stage:
        stage.reused = True
        report.progress(7.0)
    report.failure(Failure(FailureClass.OOM_GPU, "out_of_gpu_memory", "m"))
    os.close(write)
    data = os.read(read, 65536)
    os.close(read)
    received = Received()
    for start in range(0, len(data), 5):
        received.feed(data[start : start + 5])
    assert (received.stage, received.progress, received.faults) == ("fetch", 0.05, 0)
    assert received.failure is not None
    assert failure_from_wire(received.failure) == Failure(FailureClass.OOM_GPU, "out_of_gpu_memory", "m")
    [record] = report.stages
    assert record.name == "fetch"
    assert record.reused
    assert record.seconds >= 0


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="not a stage"), Report(-1).stage("lunch"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"stage": 1}',
        '{"a": 1, "b": 2}',
        '{"progress": NaN}',
        '{"stage": "lunch"}',
        '{"result": 1}',
        "\udc80",
    ],
)
def test_a_broken_line_changes_nothing(line: str) -> None:
    received = Received()
    received.feed(line.encode("utf-8", "surrogateescape") + b'\n{"progress": 0.5}\n')
    assert received.faults == 1
    assert received == Received(progress=0.5, faults=1)


@pytest.mark.parametrize(
    ("error", "failure_class", "code"),
    [
        (HubUnavailable("x"), FailureClass.TRANSIENT_IO, "hub_unavailable"),
        (DiskFull("x"), FailureClass.DISK_FULL, "disk_full"),
        (OutOfMemory("x"), FailureClass.OOM_HOST, "out_of_memory"),
        (MemoryError(), FailureClass.OOM_HOST, "out_of_memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: …"),
            FailureClass.OOM_HOST,
            "out_of_memory",
        ),
        (OSError(errno.ENOSPC, "full"), FailureClass.DISK_FULL, "disk_full"),
        (OSError(errno.EDQUOT, "quota"), FailureClass.DISK_FULL, "disk_full"),
        (ConnectionResetError("gone"), FailureClass.TRANSIENT_IO, "unavailable"),
        (TimeoutError(), FailureClass.TRANSIENT_IO, "unavailable"),
        (KeyError("k"), FailureClass.USER_ERROR, "internal_error"),
        (PermissionError(13, "no"), FailureClass.USER_ERROR, "internal_error"),
    ],
)
def test_exceptions_have_a_class(error: Exception, failure_class: FailureClass, code: str) -> None:
    failure = failure_of(error)
    assert (failure.failure_class, failure.code) == (failure_class, code)
    assert failure.message


@pytest.mark.parametrize(
    ("status", "oom_kills", "failure_class", "says"),
    [
        (-9, 1, FailureClass.OOM_HOST, "out of memory"),
        (137, 2, FailureClass.OOM_HOST, "out of memory"),
        (-9, 0, FailureClass.KILLED, "SIGKILL"),
        (-11, 0, FailureClass.KILLED, "SIGSEGV"),
        (-11, 5, FailureClass.KILLED, "SIGSEGV"),
        (-200, 0, FailureClass.KILLED, "signal 200"),
        (1, 0, FailureClass.KILLED, "status 1"),
        (0, 0, FailureClass.KILLED, "status 0"),
    ],
)
def test_silent_exits_have_a_class(status: int, oom_kills: int, failure_class: FailureClass, says: str) -> None:
    failure = failure_of_exit(status, oom_kills=oom_kills)
    assert failure.failure_class is failure_class
    assert says in failure.message


def test_a_class_of_another_version_is_the_jobs_own_error() -> None:
    assert failure_from_wire({"failure_class": "gremlins"}).failure_class is FailureClass.USER_ERROR


def test_the_stop_flag_crosses_a_fork() -> None:
    stop = StopFlag()
    assert not stop
    assert stop.level == RUNNING
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        os._exit(stop.level)
    stop.raise_level()
    os.write(write, b"x")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == STOPPING
    stop.raise_level(), stop.raise_level()
    assert stop.level == HURRYING
    os.close(read), os.close(write)


def test_scratch_is_removed_and_only_the_dead_is_collected(tmp_path: Path) -> None:
    with scratch_directory(tmp_path / "scratch", "a") as directory:
        (directory / "x").write_text("data")
        assert directory.stat().st_mode & 0o777 == 0o700
        os.utime(directory, (0, 0))
        left = tmp_path / "scratch" / "killed"
        left.mkdir()
        newborn = tmp_path / "scratch" / "newborn"
        newborn.mkdir()
        os.utime(left, (0, 0))
        assert collect_scratch(tmp_path / "scratch") == ["killed"]
        assert directory.exists()
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["newborn"]
    assert collect_scratch(tmp_path / "nothing") == []


def test_output_reaches_the_storage_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunectl.worker.log_pump.FLUSH_SECONDS", 0.01)
    storage = open_storage(str(tmp_path))
    read, write = os.pipe()
    pump = LogPump(storage, "logs/j/a1.log", read)
    pump.start()
    os.write(write, b"one\n")
    give_up = time.monotonic() + 5
    while storage.size("logs/j/a1.log") != 4:
        assert time.monotonic() < give_up
        time.sleep(0.005)
    pump.say("two")
    os.write(write, b"three")
    os.close(write)
    pump.finish()
    log = storage.read("logs/j/a1.log").decode()
    assert log.startswith("one\n")
    assert "[prunectl] two\n" in log
    assert "three" in log


def test_a_log_has_an_end_and_a_full_disk_stops_only_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunectl.worker.log_pump.MAX_BYTES", 1000)
    storage = open_storage(str(tmp_path))
    read, write = os.pipe()
    pump = LogPump(storage, "logs/long", read)
    pump.start()
    for _ in range(10):
        os.write(write, b"x" * 65536)
    os.close(write)
    pump.finish()
    size = storage.size("logs/long")
    assert size is not None and size < 200_000
    assert storage.read("logs/long").endswith(b"more than 1000 bytes\n")

    class Full:
        def append(self, name: str, data: bytes) -> None:
            raise DiskFull("no space")

    read, write = os.pipe()
    pump = LogPump(Full(), "logs/full", read)  # type: ignore[arg-type]
    pump.start()
    os.write(write, b"y" * 1000)
    os.close(write)
    pump.finish()
    assert not pump.is_alive()


class Flaky(MemoryJobStore):
    """A store that can be away."""

    away = False
    beats = 0

    def heartbeat(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.beats += 1
        if self.away:
            raise Unavailable("the database does not answer")
        return super().heartbeat(*args, **kwargs)


def keeper_of(store: MemoryJobStore, lease_seconds: float = 60.0, claimed_at: float | None = None) -> LeaseKeeper:
    job = running(store, lease_seconds=lease_seconds)
    return LeaseKeeper(
        store,
        job.lease,
        claimed_at=time.monotonic() if claimed_at is None else claimed_at,
        lease_seconds=lease_seconds,
        heartbeat_seconds=0.01,
    )


def until(holds, seconds: float = 5.0) -> None:  # type: ignore[no-untyped-def]
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def test_a_keeper_renews_and_learns_of_the_wish_to_cancel() -> None:
    store = Flaky()
    keeper = keeper_of(store)
    keeper.start()
    keeper.note("score", 0.25)
    until(lambda: store.beats >= 3)
    [(_, job_id)] = store.running()
    until(lambda: (store.get(job_id) or pytest.fail()).stage == "score")
    assert not keeper.cancel_requested
    store.cancel(job_id)
    until(lambda: keeper.cancel_requested)
    assert not keeper.fenced
    keeper.stop()
    beats = store.beats
    time.sleep(0.03)
    assert store.beats == beats


def test_a_keeper_is_fenced_when_refused() -> None:
    store = Flaky()
    keeper = keeper_of(store)
    [(_, job_id)] = store.running()
    job = store.get(job_id)
    assert job is not None
    store.hand_back(job.lease)
    keeper.start()
    until(lambda: keeper.fenced)
    keeper.join(5)
    assert not keeper.is_alive()


def test_a_keeper_fences_itself_before_the_lease_ends_unrenewed() -> None:
    store = Flaky()
    store.away = True
    keeper = keeper_of(store, lease_seconds=0.4)
    started = time.monotonic()
    keeper.start()
    assert not keeper.fenced
    until(lambda: keeper.fenced)
    assert 0.2 < time.monotonic() - started < 0.4
    assert store.beats > 1
    keeper.stop()


def test_a_short_outage_is_outlived() -> None:
    store = Flaky()
    keeper = keeper_of(store)
    store.away = True
    keeper.start()
    until(lambda: store.beats >= 2)
    store.away = False
    seen = store.beats
    until(lambda: store.beats > seen + 1)
    assert not keeper.fenced
    keeper.stop()


def test_a_database_that_hangs_does_not_hide_the_deadline() -> None:
    hung = threading.Event()

    class Hanging(MemoryJobStore):
        def heartbeat(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            hung.wait(10)

    keeper = keeper_of(Hanging(), lease_seconds=0.2)
    keeper.start()
    until(lambda: keeper.fenced, 1.0)
    hung.set()
    keeper.stop()


def test_a_runner_gets_its_share_and_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRUNECTL_DATABASE_URL", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("PRUNECTL_BROKER_URL", "redis://:hunter2@h")
    monkeypatch.setenv("PRUNECTL_API_TOKEN", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "core:/abs")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.chdir(tmp_path)
    environment = runner_environment(ASSIGNMENT, slot=1)
    assert "hunter2" not in "".join(environment.values())
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["PYTHONPATH"] == f"{tmp_path}/core:/abs"
    from dataclasses import replace

    on_gpu = replace(ASSIGNMENT, device="gpu")
    assert [runner_environment(on_gpu, slot=slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "5", "4"]


_CHILD = """
import os, sys, time
from prunectl.worker.lifeline import die_with_parent
die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(60)
"""
_PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
time.sleep(60)
"""


def test_a_process_dies_with_its_parent() -> None:
    environment = {"PYTHONPATH": python_path()}
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, _CHILD], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    until(lambda: not alive(child))
    parent.stdout.close()


def test_a_process_whose_parent_is_gone_ends_at_once() -> None:
    code = "from prunectl.worker.lifeline import die_with_parent; die_with_parent(1); print('still here')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": python_path()}, capture_output=True, text=True
    )
    assert done.returncode == 75
    assert done.stdout == ""


def test_the_reload_check_ends_with_its_runner(tmp_path: Path) -> None:
    request: dict[str, object] = {
        "original": "",
        "checkpoint": "",
        "probe": "",
        "bench_batch": 1,
        "bench_seq": 8,
        "threads": 1,
    }
    request["memory_before_bytes"] = None
    (tmp_path / "reload.json").write_text(json.dumps({**request, "parent_pid": 1}))
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "prunectl.worker.reload", str(tmp_path / "reload.json")],
        env={"PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75, done.stderr[-500:]
    assert " torch" not in done.stderr, "it looks whether its runner lives before it loads anything"


def test_signalling_a_group_that_is_gone() -> None:
    from prunectl.worker.lifeline import signal_group

    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    signal_group(process.pid, signal.SIGKILL)
