"""Every reason, from what is known about a job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prunectl.errors import FailureClass
from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.model import NEVER, Failure, Job, JobState
from prunectl.jobs.records import Standing, Sweep, Worker
from prunectl.jobs.why import reasons
from support.stores import add

CPU = Worker("t", "w1", "host", 1, ("cpu",), 2, "cpu", "1.0")
FREE = Standing(1000.0, 0, None, 0, 0, 0, 0)
BROKEN = Failure(FailureClass.TRANSIENT_IO, "hub_unavailable", "the Hub is away", "try later")


@pytest.fixture
def job() -> Job:
    return replace(add(MemoryJobStore()), not_before=900.0)


def codes(job: Job, standing: Standing = FREE, alive: tuple[Worker, ...] = (CPU,), version: str = "1.0") -> list[str]:
    return [reason.code for reason in reasons(job, standing, alive, version)]


def only(job: Job, standing: Standing = FREE, alive: tuple[Worker, ...] = (CPU,)) -> Any:
    [reason] = reasons(job, standing, alive, "1.0")
    return reason


def test_nothing_in_the_way(job: Job) -> None:
    assert only(job).code == "next"


def test_no_worker_for_the_queue(job: Job) -> None:
    assert only(job, alive=()).hint == "start one: prunectl worker --queues cpu"
    gpu = replace(CPU, queues=("gpu",))
    reason = only(job, alive=(gpu,))
    assert (reason.code, reason.data) == ("no_worker", {"queue": "cpu", "queues_served": ["gpu"]})


def test_quota(job: Job) -> None:
    reason = only(job, replace(FREE, owner_running=3, owner_limit=3))
    assert (reason.code, reason.message) == ("quota", "quota: 3 of 3 jobs of ada are running")
    assert codes(job, replace(FREE, owner_running=2, owner_limit=3)) == ["next"]


def test_back_off(job: Job) -> None:
    later = replace(job, not_before=1010.0, attempt=2, failures=2, failure=BROKEN)
    reason = only(later)
    assert (reason.code, reason.hint) == ("backoff", "try later")
    assert reason.message.startswith("waits until 1970-01-01T00:16:50.000Z (10 s more) after attempt 2: hub_unavail")
    assert (reason.data["seconds"], reason.data["failures"], reason.data["error_code"]) == (10.0, 2, "hub_unavailable")


def test_jobs_ahead_and_busy_slots(job: Job) -> None:
    crowded = replace(FREE, ahead_by_priority=2, ahead_by_fair_share=1, ahead_by_age=4, queue_running=2)
    ahead, busy = reasons(job, crowded, (CPU,), "1.0")
    assert ahead.message == "7 jobs are ahead: 2 of a higher priority, 1 of owners with fewer running jobs, 4 older"
    assert ahead.data["ahead"] == 7
    assert (busy.code, busy.message) == ("slots_busy", "all 2 slots of the queue cpu are busy")
    assert only(job, replace(FREE, ahead_by_age=1)).message == "1 job is ahead: 1 older"


def test_version_skew_is_told_beside_what_holds_it_back(job: Job) -> None:
    old = replace(CPU, name="w0", version="0.9")
    assert codes(job, alive=(CPU, old)) == ["next", "version_skew"]
    skew = reasons(job, FREE, (CPU, old), "1.0")[1]
    assert skew.data == {"workers": ["w0"], "versions": ["0.9"], "service_version": "1.0"}
    assert codes(job, alive=(CPU, replace(old, queues=("gpu",)))) == ["next"]


def test_the_heaviest_reason_is_the_first(job: Job) -> None:
    later = replace(job, not_before=1010.0)
    held = replace(FREE, owner_running=1, owner_limit=1, ahead_by_age=1)
    assert codes(later, held, alive=()) == ["no_worker", "quota", "backoff", "ahead"]


def at_work(job: Job, **more: Any) -> Job:
    values = {
        "state": JobState.RUNNING,
        "attempt": 1,
        "worker": "w1",
        "stage": "prune",
        "progress": 0.5,
        "started_at": 990.0,
        "lease_until": 1030.0,
    }
    return replace(job, **{**values, **more})


def test_running(job: Job) -> None:
    reason = only(at_work(job))
    assert (reason.code, reason.message) == (
        "running",
        "runs: attempt 1 on w1, prune 50%, since 1970-01-01T00:16:30.000Z",
    )
    assert codes(at_work(job, cancel_requested_at=995.0)) == ["running", "cancelling"]


def test_a_silent_worker(job: Job) -> None:
    silent = reasons(at_work(job), FREE, (), "1.0")[1]
    assert silent.code == "worker_silent"
    assert "(30 s)" in silent.message


def test_ended(job: Job) -> None:
    failed = replace(job, state=JobState.FAILED, finished_at=1.0, attempt=3, failures=3, failure=BROKEN)
    assert only(failed).message == "failed at 1970-01-01T00:00:01.000Z, attempt 3: hub_unavailable: the Hub is away"
    assert only(replace(job, state=JobState.CANCELLED, finished_at=1.0)).code == "cancelled"
    won = replace(job, state=JobState.SUCCEEDED, finished_at=1.0, attempt=1, result={"gate": None})
    assert only(won).code == "succeeded"
    condition = {"metric": "eval_accuracy", "op": ">=", "limit": 0.7, "value": 0.6, "passed": False}
    missed = replace(won, result={"gate": {"passed": False, "conditions": [condition]}})
    assert codes(missed) == ["succeeded", "gate_failed"]
    assert "eval_accuracy 0.6 is not >= 0.7" in reasons(missed, FREE, (), "1.0")[1].message


def test_a_search_waits_for_its_candidates(job: Job) -> None:
    counts = {JobState.RUNNING: 2, JobState.QUEUED: 1, JobState.SUCCEEDED: 3}
    sweep = Sweep("s1", "ada", {}, None, 0.0, counts=counts, search_id=job.id)
    [reason] = reasons(replace(job, waits_for="s1", not_before=NEVER), FREE, (CPU,), "1.0", sweep)
    assert (reason.code, reason.data["sweep_id"], reason.data["running"]) == ("candidates", "s1", 2)
    assert reason.message == "waits for 3 of the 6 candidates that its search has queued so far"
