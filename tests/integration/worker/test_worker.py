"""Real Celery workers on both stacks; runners that prune nothing.

Whatever is killed, each job ends once, and nothing is left running.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from prunectl.db import migrate
from prunectl.jobs.model import Job, JobState
from support.fleet import Fleet, descendants, until
from support.servers import RedisServer, alive, kill_hard


@pytest.fixture(params=["filesystem, SQLite", "Redis, PostgreSQL"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "filesystem, SQLite":
        database, broker = request.getfixturevalue("sqlite_url"), "filesystem://"
    else:
        database = request.getfixturevalue("postgres_database")
        server: RedisServer = request.getfixturevalue("redis_server")
        redis.Redis(port=server.port).flushall()
        broker = server.url
        migrate.upgrade(database)
    found = Fleet(tmp_path, database_url=database, broker_url=broker)
    try:
        yield found
    finally:
        found.close()


def assert_each_succeeded_once(fleet: Fleet, jobs: list[Job]) -> None:
    published = fleet.storage.list("runs")
    for job in jobs:
        states = [event.data["state"] for event in fleet.store.events(job.id) if event.kind == "state"]
        assert states.count("succeeded") == 1, (job.id, states)
        attempts = {name.split("/")[1] for name in published if name.startswith(f"{job.id}/")}
        assert len(attempts) == 1, "one artifact, of the attempt that succeeded"


def test_two_workers_share_the_work_and_rings_may_be_doubled(fleet: Fleet) -> None:
    fleet.start(slots=2), fleet.start()
    jobs = fleet.submit(*["sleep 0.2"] * 8)
    fleet.bell.ring("cpu", 60)
    ended = fleet.wait(jobs)
    assert_each_succeeded_once(fleet, ended)
    assert [len(fleet.starts(job)) for job in jobs] == [1] * 8
    assert len({job.worker for job in ended}) == 2


@pytest.mark.parametrize("victim", ["runner", "pool process", "worker"])
def test_whoever_is_killed_the_job_is_done_again(fleet: Fleet, victim: str) -> None:
    worker = fleet.start()
    [job] = fleet.submit("sleep 2")
    runner = fleet.runner(job)
    [pool_process] = [pid for pid in descendants(worker.pid) if runner in descendants(pid)]
    fleet.pools_were_killed = victim == "pool process"
    kill_hard({"runner": runner, "pool process": pool_process, "worker": worker.pid}[victim])
    until(lambda: not alive(runner), "the runner to end", 5)
    if victim == "worker":
        until(lambda: not alive(pool_process), "the pool process to end", 5)
        fleet.start()
    [ended] = fleet.wait([job])
    assert ended.state is JobState.SUCCEEDED
    assert (ended.attempt, ended.failures) == (2, 1)
    assert_each_succeeded_once(fleet, [ended])


def test_worker_and_pool_killed_together_cost_a_lease(fleet: Fleet) -> None:
    worker = fleet.start()
    [job] = fleet.submit("sleep 1")
    runner = fleet.runner(job)
    killed_at = time.monotonic()
    for pid in (worker.pid, *descendants(worker.pid)):
        if pid != runner:
            kill_hard(pid)
    until(lambda: not alive(runner), "the runner to die with its parent", 3)
    fleet.start(name="another")
    [ended] = fleet.wait([job])
    assert (ended.state, ended.attempt, ended.failures, ended.worker) == (JobState.SUCCEEDED, 2, 1, "another")
    assert time.monotonic() - killed_at < 15
    assert_each_succeeded_once(fleet, [ended])


def test_cancel_queued_and_running(fleet: Fleet) -> None:
    fleet.start()
    running, queued = fleet.submit("sleep 60", "sleep 60")
    runner = fleet.runner(running)
    fleet.store.cancel(queued.id)
    assert fleet.get(queued).state is JobState.CANCELLED
    fleet.store.cancel(running.id)
    [ended] = fleet.wait([running], 8)
    assert ended.state is JobState.CANCELLED
    assert not alive(runner)
    assert fleet.starts(queued) == []


def test_a_job_too_long_fails_and_the_next_one_runs(fleet: Fleet) -> None:
    fleet.start()
    [slow] = fleet.submit("deaf 60", timeout_seconds=0.5)
    [after] = fleet.submit("ok", priority=-1)
    ended = fleet.wait([slow, after])
    assert [job.state for job in ended] == [JobState.FAILED, JobState.SUCCEEDED]
    assert ended[0].failure is not None
    assert ended[0].failure.code == "timeout"


def test_sigterm_hands_the_job_back_and_another_worker_does_it(fleet: Fleet) -> None:
    worker = fleet.start()
    [job] = fleet.submit("sleep 2")
    runner = fleet.runner(job)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert not alive(runner)
    back = fleet.get(job)
    assert (back.state, back.failures, back.attempt) == (JobState.QUEUED, 0, 1)
    assert [row.pid for row in fleet.worker_rows.workers()] == []
    fleet.start()
    [ended] = fleet.wait([job])
    assert (ended.state, ended.failures, ended.attempt) == (JobState.SUCCEEDED, 0, 2)


def test_a_second_sigterm_does_not_wait_for_a_deaf_runner(fleet: Fleet) -> None:
    worker = fleet.start()
    [job] = fleet.submit("deaf 60")
    runner = fleet.runner(job)
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert not alive(runner)
    assert fleet.get(job).state is JobState.QUEUED


def test_messages_lost_or_never_sent_are_made_up_for(fleet: Fleet) -> None:
    fleet.start()
    jobs = [added.job for added in fleet.store.add([_silent() for _ in range(3)])]  # nobody rings
    ended = fleet.wait(jobs, 15)
    assert_each_succeeded_once(fleet, ended)


def test_the_log_can_be_read_while_the_job_runs(fleet: Fleet) -> None:
    fleet.start()
    [job] = fleet.submit("sleep 60")
    until(lambda: "doing sleep" in fleet.log(job), "the log")
    assert fleet.get(job).state is JobState.RUNNING
    until(lambda: fleet.get(job).stage == "prune", "the stage")
    fleet.store.cancel(job.id)
    fleet.wait([job], 8)


def _silent():  # type: ignore[no-untyped-def]
    from support.stores import new_job

    return new_job(spec={"model": "m", "recipe": {}, "evaluation": {}, "tags": {"stub": "ok"}})
