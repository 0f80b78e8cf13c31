"""One slot, one real runner process, stores in memory: every way in which a job can end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunectl.errors import FailureClass, Unavailable
from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.model import Job, JobState
from prunectl.storage import run_name
from support.one_slot import Bench
from support.queue_stub import python_path
from support.servers import alive, kill_hard
from support.stores import get


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


@pytest.fixture(params=["started anew", "forked"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(tmp_path, warm=request.param == "forked")
    yield bench
    bench.supervisor.close()


def test_success(bench: Bench) -> None:
    job = bench.serve("ok")
    assert job.state is JobState.SUCCEEDED
    assert job.result is not None
    assert job.result["metrics"]["parameters"]["after"] == 5
    assert [stage["name"] for stage in job.result["stages"]] == ["prune", "save"]
    assert bench.storage.list("runs")[0].endswith("config.json")
    assert bench.storage.name_of(job.result["artifacts"]["checkpoint"]) is not None
    log = bench.log(job)
    assert "doing ok" in log
    assert f"job={job.id}" in log
    assert bench.bell.rings == []


def test_nothing_to_do(bench: Bench) -> None:
    assert not bench.supervisor.serve_one()


def test_more_to_do_is_rung_for(bench: Bench) -> None:
    bench.job("ok", priority=-1)
    bench.serve("ok")
    assert bench.bell.rings == ["cpu"]


def test_a_slot_goes_on_with_the_model_of_its_last_success(bench: Bench) -> None:
    bench.serve("ok", model_identity="a")
    waiting = [bench.job("ok", model_identity=model) for model in "baa"]
    failing = bench.job("error weights_corrupt", model_identity="a")
    other = bench.job("ok", model_identity="c")
    order = []
    for _ in range(5):
        before = {job.id for job in bench.store.all() if job.state is JobState.QUEUED}
        assert bench.supervisor.serve_one()
        order += before - {job.id for job in bench.store.all() if job.state is JobState.QUEUED}
    old, *same = [job.id for job in waiting]
    assert order == [*same, failing.id, old, other.id]


def test_after_a_fault_a_slot_takes_the_oldest(bench: Bench) -> None:
    bench.serve("ok", model_identity="a")
    bench.serve("kill", model_identity="a", max_failures=0)
    old, _same = bench.job("ok", model_identity="b"), bench.job("ok", model_identity="a")
    assert bench.supervisor.serve_one()
    assert get(bench.store, old).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("stub", "state", "failure_class", "code"),
    [
        ("error weights_corrupt", JobState.FAILED, FailureClass.USER_ERROR, "weights_corrupt"),
        ("error hub_unavailable", JobState.QUEUED, FailureClass.TRANSIENT_IO, "hub_unavailable"),
        ("nonsense", JobState.FAILED, FailureClass.USER_ERROR, "internal_error"),
        ("memory", JobState.QUEUED, FailureClass.OOM_HOST, "out_of_memory"),
        ("exit 3", JobState.QUEUED, FailureClass.KILLED, "runner_died"),
        ("kill", JobState.QUEUED, FailureClass.KILLED, "runner_died"),
    ],
)
def test_failures(bench: Bench, stub: str, state: JobState, failure_class: FailureClass, code: str) -> None:
    job = bench.serve(stub)
    assert job.state is state
    assert job.failures == 1
    assert job.failure is not None
    assert (job.failure.failure_class, job.failure.code) == (failure_class, code)


def test_the_traceback_is_in_the_log_without_local_variables(bench: Bench) -> None:
    job = bench.serve("nonsense")
    log = bench.log(job)
    assert "AssertionError: nobody foresaw this" in log
    assert "Traceback" in log
    assert get(bench.store, job).lease_token is None
    assert "lease_token=" not in log


def test_a_poison_job_ends(bench: Bench) -> None:
    job = bench.job("kill", max_failures=0)
    assert bench.supervisor.serve_one()
    assert get(bench.store, job).state is JobState.FAILED
    assert not bench.supervisor.serve_one()


def test_cancel(bench: Bench) -> None:
    started = time.monotonic()
    job = bench.serve("sleep 30", meanwhile=lambda job, pid: bench.store.cancel(job.id) and None)
    assert job.state is JobState.CANCELLED
    assert time.monotonic() - started < 5
    assert "ending the job: cancelled" in bench.log(job)


def test_cancel_a_runner_that_ignores_it_and_has_children(bench: Bench) -> None:
    assert (
        bench.serve("deaf 30", meanwhile=lambda job, pid: bench.store.cancel(job.id) and None).state
        is JobState.CANCELLED
    )


def test_children_of_a_runner_end_with_it(bench: Bench) -> None:
    children: list[int] = []

    def cancel(job: Job, pid: int) -> None:
        path = Path(f"/proc/{pid}/task/{pid}/children")
        while not children:
            children.extend(int(child) for child in path.read_text().split())
        bench.store.cancel(job.id)

    assert bench.serve("child 30", meanwhile=cancel).state is JobState.CANCELLED
    assert children
    assert not any(alive(child) for child in children)


def test_timeout(bench: Bench) -> None:
    job = bench.serve("sleep 30", timeout_seconds=2.5)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.failure_class is FailureClass.TIMEOUT
    assert "2.5 s" in job.failure.message


def test_the_services_limit_holds_where_the_job_has_none(tmp_path: Path) -> None:
    job = Bench(tmp_path, job_timeout_seconds=2.5).serve("sleep 30")
    assert job.failure is not None
    assert job.failure.code == "timeout"


def test_stop_hands_the_job_back(bench: Bench) -> None:
    job = bench.serve("sleep 30", meanwhile=lambda job, pid: bench.stop.raise_level())
    assert (job.state, job.failures, job.attempt) == (JobState.QUEUED, 0, 1)
    assert "cpu" in bench.bell.rings
    assert not bench.supervisor.serve_one()  # told to stop: takes no more


def test_a_second_stop_does_not_wait_for_a_deaf_runner(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cancel_grace_seconds=60)

    def twice(job: Job, pid: int) -> None:
        bench.stop.raise_level()
        time.sleep(0.3)
        assert alive(pid)
        bench.stop.raise_level()

    started = time.monotonic()
    assert bench.serve("deaf 60", meanwhile=twice).state is JobState.QUEUED
    assert time.monotonic() - started < 10


def test_stopping_a_job_that_was_to_be_cancelled_cancels_it(bench: Bench) -> None:
    def both(job: Job, pid: int) -> None:
        bench.stop.raise_level()
        bench.store.cancel(job.id)

    assert bench.serve("sleep 30", meanwhile=both).state is JobState.CANCELLED


def test_a_fenced_worker_writes_nothing_and_takes_back_what_it_published(bench: Bench) -> None:
    def lose(job: Job, pid: int) -> None:
        while not bench.storage.list("runs"):
            time.sleep(0.01)
        bench.store.hand_back(get(bench.store, job).lease)  # as a sweeper would
        other = bench.store.claim(["cpu"], worker="w2", device="cpu", lease_seconds=60)
        assert other is not None

    job = bench.serve("late 30", meanwhile=lose)
    assert (job.state, job.worker, job.attempt) == (JobState.RUNNING, "w2", 2)
    assert job.failure is None


def test_a_result_that_comes_too_late_is_taken_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, heartbeat_seconds=2.0)  # no heartbeat tells it before

    def lose(job: Job, pid: int) -> None:
        while not bench.storage.list("runs"):
            time.sleep(0.01)
        bench.store.hand_back(get(bench.store, job).lease)
        bench.store.cancel(job.id)

    job = bench.serve("late 0.5", meanwhile=lose)
    assert job.state is JobState.CANCELLED
    assert job.result is None


class Away(MemoryJobStore):
    """A store that loses some answers: each entry of ``lost`` is whether the write had been done."""

    def __init__(self, *lost: bool) -> None:
        super().__init__()
        self.lost = list(lost)

    def succeed(self, lease, result):  # type: ignore[no-untyped-def]
        if self.lost:
            if self.lost.pop(0):
                super().succeed(lease, result)
            raise Unavailable("the database does not answer")
        return super().succeed(lease, result)


def test_a_database_that_is_away_at_the_end_is_waited_for(tmp_path: Path) -> None:
    store = Away(False, False)
    job = Bench(tmp_path, store).serve("ok")
    assert job.state is JobState.SUCCEEDED
    assert store.lost == []


def test_a_success_whose_answer_was_lost_keeps_its_artifacts(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Away(True))
    job = bench.serve("ok")
    assert job.state is JobState.SUCCEEDED
    kept = bench.storage.list(run_name(job.id, 1, bench.storage.list("runs")[0].split("-")[1][:8]))
    assert kept == ["config.json", "model.safetensors"]


def test_a_database_that_stays_away_fences(tmp_path: Path) -> None:
    class Dead(MemoryJobStore):
        def heartbeat(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            raise Unavailable("the database does not answer")

    bench = Bench(tmp_path, Dead(), lease_seconds=1.2)
    started = time.monotonic()
    job = bench.serve("sleep 30")
    assert time.monotonic() - started < 1.2 + 1.5
    assert job.state is JobState.RUNNING  # for a sweeper to find
    bench.store.sweep()


def test_a_runner_that_cannot_start_fails_the_job(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.supervisor._runner = ("/no/such/program",)
    job = bench.job("ok")
    assert bench.supervisor.serve_one()
    after = get(bench.store, job)
    assert after.state is JobState.FAILED
    assert after.failure is not None
    assert after.failure.code == "internal_error"


def test_a_pool_that_is_ended_hands_back(bench: Bench) -> None:
    def interrupted(_number: int, _frame: object) -> None:
        raise SystemExit(1)

    job = bench.job("sleep 30")
    before = signal.signal(signal.SIGTERM, interrupted)
    killer = threading.Thread(target=lambda: (bench.runner_pid(job), os.kill(os.getpid(), signal.SIGTERM)))
    killer.start()
    try:
        with pytest.raises(SystemExit):
            bench.supervisor.serve_one()
    finally:
        signal.signal(signal.SIGTERM, before)
        killer.join(5)
    after = get(bench.store, job)
    assert (after.state, after.failures) == (JobState.QUEUED, 0)
    assert not alive(bench.runner_pid(job))


def test_a_runner_killed_from_outside(bench: Bench) -> None:
    job = bench.serve("sleep 30", meanwhile=lambda job, pid: kill_hard(pid))
    assert job.state is JobState.QUEUED
    assert job.failure is not None
    assert job.failure.failure_class in (FailureClass.KILLED, FailureClass.OOM_HOST)


def test_a_storage_that_takes_no_log_does_not_stop_the_job(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "logs").write_text("in the way")
    assert Bench(tmp_path).serve("ok").state is JobState.SUCCEEDED


def test_a_secret_goes_when_its_job_ends(bench: Bench) -> None:
    from prunectl.jobs.secrets import SecretFiles

    secrets = SecretFiles(bench.settings.home / "secrets")
    for stub, stays in (("ok", False), ("error hub_unavailable", True)):
        job = bench.job(stub)
        secrets.keep(job.id, "hf_x")
        assert bench.supervisor.serve_one()
        assert (secrets.read(job.id) is not None) is stays
