"""Runners that are forked from a template: what they share, and that nothing of one job reaches another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from prunectl.jobs.model import Job, JobState
from prunectl.worker import runner_process, warm_runners
from prunectl.worker.lifeline import ORPHANED_EXIT
from prunectl.worker.warm_runners import WarmRunners
from support import models
from support.one_slot import Bench
from support.queue_stub import TEMPLATE, python_path
from support.servers import alive, kill_hard
from support.stores import add, get


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    before = children()  # servers that other tests of this process share
    bench = Bench(tmp_path, warm=True)
    yield bench
    bench.supervisor.close()
    assert children() == before, "nothing is left, zombies included"


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def template_of(bench: Bench) -> int:
    warm = bench.supervisor.warm
    assert warm is not None and warm.template_pid is not None
    return warm.template_pid


def said(bench: Bench, job: Job) -> dict[str, str]:
    """What a job of the stub ``environment`` printed."""
    line = next(line for line in bench.log(job).splitlines() if line.startswith("{"))
    found: dict[str, str] = json.loads(line)
    return found


def with_command(bench: Bench, *command: str, max_jobs: int = 200) -> WarmRunners:
    """Give the bench's supervisor a template of its own."""
    bench.supervisor.close()
    bench.supervisor.warm = WarmRunners(command or TEMPLATE, max_jobs=max_jobs)
    return bench.supervisor.warm


def test_two_jobs_share_a_template(bench: Bench) -> None:
    seen: list[tuple[int, int, str]] = []

    def look(_job: Job, pid: int) -> None:
        process = psutil.Process(pid)
        seen.append((process.ppid(), os.getsid(pid), Path(f"/proc/{pid}/comm").read_text().strip()))

    first = bench.serve("sleep 0.5", meanwhile=look)
    template = template_of(bench)
    second = bench.serve("sleep 0.5", meanwhile=look)
    assert [first.state, second.state] == [JobState.SUCCEEDED] * 2
    assert template_of(bench) == template
    runners = [bench.runner_pid(job) for job in (first, second)]
    assert len({template, *runners}) == 3
    assert seen == [(os.getpid(), runner, "prunectl-runner") for runner in runners]
    assert Path(f"/proc/{template}/comm").read_text().strip() == "prunectl-warm"


def test_a_killed_runner_does_not_harm_the_next(bench: Bench) -> None:
    bench.serve("ok")
    template = template_of(bench)
    killed = bench.serve("sleep 30", meanwhile=lambda _job, pid: kill_hard(pid), max_failures=0)
    assert killed.state is JobState.FAILED
    assert killed.failure is not None and killed.failure.code in ("runner_died", "out_of_memory")
    assert not alive(template), "after a fault the next one gets another template"
    assert bench.serve("ok").state is JobState.SUCCEEDED
    assert template_of(bench) != template


@pytest.mark.parametrize("stub", ["error weights_corrupt", "deaf 30"])
def test_a_failure_that_was_reported_and_a_cancellation_keep_the_template(bench: Bench, stub: str) -> None:
    bench.serve("ok")
    template = template_of(bench)
    cancel: Callable[[Job, int], None] | None = None
    if stub.startswith("deaf"):
        cancel = lambda job, _pid: bench.store.cancel(job.id) and None  # noqa: E731
    assert bench.serve(stub, meanwhile=cancel).state.terminal
    assert template_of(bench) == template


def test_a_killed_template_does_not_harm_its_runner_or_the_next(bench: Bench) -> None:
    bench.serve("ok")
    template = template_of(bench)
    job = bench.serve("sleep 1", meanwhile=lambda _job, _pid: kill_hard(template))
    assert (job.state, job.failures, job.attempt) == (JobState.SUCCEEDED, 0, 1)
    assert bench.serve("ok").state is JobState.SUCCEEDED
    again = template_of(bench)
    assert again != template
    kill_hard(again)  # while nobody works
    assert bench.serve("ok").state is JobState.SUCCEEDED


def test_a_frozen_template_costs_time_and_no_second_runner(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_runners, "_FORK_SECONDS", 0.3)
    bench.serve("ok")
    template = template_of(bench)
    os.kill(template, signal.SIGSTOP)
    job = bench.serve("ok")
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    assert len(bench.storage.read(f"starts/{job.id}").split()) == 1
    assert not alive(template)


def test_a_template_that_answers_late_forks_nothing_that_works(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request has been read and its runner forked; the supervisor never learned of it."""
    forked: list[int] = []

    def ask_and_give_up(
        self: WarmRunners, ends: warm_runners.Ends, environment: dict[str, str], directory: str
    ) -> NoReturn:
        assert self._socket is not None
        waits, go = os.pipe()
        message = json.dumps({"environment": environment, "directory": directory}).encode()
        socket.send_fds(self._socket, [message], [ends.stdin, ends.output, ends.report, waits])
        os.close(waits)
        forked.append(self._answer(10, lambda: True)["pid"])
        os.close(go)
        raise warm_runners.TemplateFault("the answer came too late")

    monkeypatch.setattr(WarmRunners, "_ask", ask_and_give_up)
    job = bench.serve("ok")
    assert job.state is JobState.SUCCEEDED
    [late] = forked
    assert len(bench.storage.read(f"starts/{job.id}").split()) == 1
    assert os.waitstatus_to_exitcode(os.waitpid(late, 0)[1]) == ORPHANED_EXIT


def test_nothing_of_an_environment_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_FIRST", "1")
    first = bench.serve("environment")
    template = template_of(bench)
    monkeypatch.delenv("OF_THE_FIRST")
    second = bench.serve("environment")
    assert template_of(bench) != template, "a library may have read it while it was imported"
    third = bench.serve("environment")
    one, two, three = (said(bench, job) for job in (first, second, third))
    assert one["OF_THE_FIRST"] == "1"
    assert "OF_THE_FIRST" not in two
    for job, found in ((first, one), (second, two), (third, three)):
        assert job.id in found["TMPDIR"]
        assert found["temporary files"] == found["TMPDIR"] == found["cwd"]
        assert found["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0))))
        assert found["CUDA_VISIBLE_DEVICES"] == ""
        assert "OPENBLAS_NUM_THREADS" not in found, "the template's own"


def test_memory_of_a_finished_job_is_given_back(bench: Bench) -> None:
    bench.serve("ok")
    template = psutil.Process(template_of(bench))
    before, known = template.memory_info().rss, children()
    job = bench.serve("hold 256")
    assert job.state is JobState.SUCCEEDED
    assert template.pid == template_of(bench)
    assert template.memory_info().rss - before < 8 * 2**20
    assert children() == known, "the template stays, the runner is gone"


def test_a_template_serves_so_many_jobs(bench: Bench) -> None:
    warm = with_command(bench, max_jobs=2)
    pids = []
    for _ in range(3):
        bench.serve("ok")
        pids.append(warm.template_pid)
    assert pids[0] == pids[1] != pids[2]


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    bench = Bench(tmp_path, warm=True, warm_runners=False)
    assert bench.supervisor.warm is None
    assert bench.serve("ok").state is JobState.SUCCEEDED


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "print('not what is asked for')"])
def test_a_template_that_does_not_come_up_is_done_without(bench: Bench, program: str) -> None:
    with_command(bench, sys.executable, "-c", program)
    assert bench.serve("ok").state is JobState.SUCCEEDED


def test_a_template_with_threads_is_never_forked(bench: Bench) -> None:
    program = (
        "import sys, threading; from prunectl.worker import template;"
        "threading.Thread(target=threading.Event().wait, daemon=True).start();"
        "sys.exit(template.main(sys.argv[1:], preload=lambda: None))"
    )
    warm = with_command(bench, sys.executable, "-c", program)
    assert bench.serve("ok").state is JobState.SUCCEEDED
    assert warm.template_pid is None
    assert bench.serve("ok").state is JobState.SUCCEEDED
    assert warm.template_pid is None, "it isn't tried again"


def test_a_job_can_be_cancelled_while_the_template_starts(bench: Bench) -> None:
    with_command(bench, sys.executable, "-c", "import time; time.sleep(60)")
    job = bench.job("sleep 30")
    bench.serve_in_background()
    deadline = time.monotonic() + 10
    while get(bench.store, job).state is not JobState.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bench.store.cancel(job.id)
    while not get(bench.store, job).state.terminal:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bench.join()
    assert get(bench.store, job).state is JobState.CANCELLED


def test_the_shipped_template_serves_jobs_that_prune_and_prove(tmp_path: Path) -> None:
    """Two real jobs: one template with torch and one thread, and a reload that a fork of the runner proves."""
    model = models.build(tmp_path / "tiny", "bert", "fill-mask", layers=2)
    bench = Bench(tmp_path / "home", warm=True, lease_seconds=60.0, embedded=True)
    warm = with_command(bench, *runner_process.TEMPLATE)
    provers: set[int] = set()

    def watch_for_provers(runner: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            for child in psutil.Process(runner).children():
                if Path(f"/proc/{child.pid}/comm").read_text().strip() == "prunectl-reload":
                    assert psutil.Process(warm.template_pid).num_threads() == 1
                    provers.add(runner)

    def watch_until(done: threading.Event) -> None:
        while not done.wait(0.02):
            for child in children() - {warm.template_pid}:
                watch_for_provers(child)

    try:
        for heads in (0.25, 0.5):
            spec = {
                "model": str(model),
                "recipe": {"heads": heads},
                "evaluation": {"max_samples": 24, "bench_seq": 16},
                "tags": {},
                "environment": {"cwd": str(tmp_path)},
            }
            job = add(bench.store, spec=spec, model_identity="")
            done = threading.Event()
            watcher = threading.Thread(target=watch_until, args=(done,))
            watcher.start()
            assert bench.supervisor.serve_one()  # here: a template ends with the thread that started it
            done.set()
            watcher.join(10)
            ended = get(bench.store, job)
            assert ended.state is JobState.SUCCEEDED, ended.failure
            assert ended.result is not None
            assert "reload" in [stage["name"] for stage in ended.result["stages"]]
            assert ended.result["conditions"]["reload_max_abs_difference"] <= 1e-5
            assert ended.result["metrics"]["peak_memory_bytes"]["after"] > 0
        assert len(provers) == 2
    finally:
        bench.supervisor.close()


def test_the_template_ends_with_its_worker(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path[:0] = os.environ['PYTHONPATH'].split(os.pathsep);"
        "from pathlib import Path; from support.one_slot import Bench;"
        "bench = Bench(Path(sys.argv[1]), warm=True); bench.serve('ok');"
        "print(bench.supervisor.warm.template_pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -9
    template, deadline = int(done.stdout), time.monotonic() + 5
    while alive(template):
        assert time.monotonic() < deadline
        time.sleep(0.01)
