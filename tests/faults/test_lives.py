"""Freezing, stopping, cancelling and poison: each job ends as it should, and the fence holds."""

from __future__ import annotations

import os
import signal
import time

import pytest

from prunectl.errors import FailureClass
from prunectl.jobs.model import JobState
from support.faults import assert_nothing_lost, paused
from support.fleet import CLOCKS, Fleet, descendants, until
from support.queue_stub import SUPERVISOR_POINTS
from support.servers import alive, kill_hard


def family(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


@pytest.mark.parametrize("stub", ["sleep 4", "late 4"])
def test_a_worker_frozen_beyond_its_lease_writes_nothing(fleet: Fleet, stub: str) -> None:
    frozen = fleet.start(name="frozen")
    [job] = fleet.submit(stub)
    fleet.runner(job)
    if stub.startswith("late"):
        until(lambda: bool(fleet.storage.list("runs")), "the checkpoint")
    pids = family(frozen.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(CLOCKS["lease_seconds"] + 1)
    fleet.start(name="other")
    until(lambda: fleet.get(job).state.terminal, "the other worker", 30)
    before = fleet.get(job)
    assert (before.state, before.worker, before.attempt) == (JobState.SUCCEEDED, "other", 2)
    log, events = fleet.log(job), fleet.store.events(job.id)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    time.sleep(2 * CLOCKS["lease_seconds"])
    [ended] = assert_nothing_lost(fleet, [job])
    assert ended == before, "not one column"
    assert fleet.store.events(job.id) == events
    assert fleet.log(job) == log
    assert_nothing_lost(fleet, fleet.submit("ok", "ok", "ok", "ok"))  # and the thawed one works on


def test_only_the_supervisor_frozen(fleet: Fleet) -> None:
    """Its runner goes on without a lease, and must come to nothing."""
    worker = fleet.start(name="frozen")
    [job] = fleet.submit("sleep 5")
    runner = fleet.runner(job)
    [pool] = [pid for pid in descendants(worker.pid) if runner in descendants(pid)]
    os.kill(pool, signal.SIGSTOP)
    time.sleep(CLOCKS["lease_seconds"] + 1)
    fleet.start(name="other")
    until(lambda: fleet.get(job).state.terminal, "the other worker", 30)
    os.kill(pool, signal.SIGCONT)
    until(lambda: not alive(runner), "the end of the runner without a lease")
    [ended] = assert_nothing_lost(fleet, [job])
    assert (ended.worker, ended.attempt) == ("other", 2)


def test_poison_ends_and_others_are_done(fleet: Fleet) -> None:
    fleet.start(slots=2)
    [killer] = fleet.submit("kill", max_failures=1)
    [grower] = fleet.submit("grow 600", max_failures=0)
    [hanging] = fleet.submit("deaf 600", timeout_seconds=2)
    [broken] = fleet.submit("nonsense")
    others = fleet.submit(*["ok"] * 20)
    poison = [killer, grower, hanging, broken]
    ended = assert_nothing_lost(
        fleet, [*poison, *others], seconds=90, expected={job.id: JobState.FAILED for job in poison}
    )
    classes = [job.failure.failure_class for job in ended[:4] if job.failure]
    # By whom a process was killed only the kernel could say, and here it counts its own kills for the whole machine.
    assert classes[0] in (FailureClass.KILLED, FailureClass.OOM_HOST)
    assert classes[1:] == [FailureClass.OOM_HOST, FailureClass.TIMEOUT, FailureClass.USER_ERROR]
    assert [len(fleet.starts(job)) for job in poison] == [2, 1, 1, 1]


@pytest.mark.parametrize("point", SUPERVISOR_POINTS[:2])
def test_cancelled_between_claim_and_start(fleet: Fleet, point: str) -> None:
    worker = fleet.start(slots=2)
    fleet.pools_were_killed = True
    [job] = fleet.submit("ok", pause=point)
    paused(fleet, job)
    fleet.store.cancel(job.id)
    assert fleet.get(job).state is JobState.RUNNING, "the wish is noted"
    for pid in descendants(worker.pid):
        kill_hard(pid)  # and nobody is left to hear of it
    assert_nothing_lost(fleet, [job], expected={job.id: JobState.CANCELLED})
    assert fleet.starts(job) == []


def test_cancelled_in_each_state_and_with_its_worker_dead(fleet: Fleet) -> None:
    worker = fleet.start(slots=3)
    running, publishing, orphan = fleet.submit("deaf 60", "late 60", "sleep 60")
    for job in (running, publishing, orphan):
        fleet.runner(job)
    until(lambda: bool(fleet.storage.list("runs")), "the checkpoint")
    [queued] = fleet.submit("ok", queue="gpu")
    [backing_off] = fleet.submit("error hub_unavailable", priority=9)
    for job in (queued, running, publishing):
        fleet.store.cancel(job.id)
        fleet.store.cancel(job.id) if not fleet.get(job).state.terminal else None  # a second wish changes nothing
    until(lambda: fleet.get(backing_off).failures == 1, "the first failure", 30)
    fleet.store.cancel(backing_off.id)
    fleet.store.cancel(orphan.id)
    kill_hard(worker.pid)
    fleet.start()
    cancelled = [running, publishing, orphan, queued, backing_off]
    assert_nothing_lost(fleet, cancelled, expected={job.id: JobState.CANCELLED for job in cancelled})


def test_sigterm_with_a_long_job_and_a_deaf_one(fleet: Fleet) -> None:
    worker = fleet.start(slots=2)
    long, deaf = fleet.submit("sleep 600", "deaf 600")
    runners = [fleet.runner(job) for job in (long, deaf)]
    worker.send_signal(signal.SIGTERM)
    before = time.monotonic()
    assert worker.wait(20) == 0
    assert time.monotonic() - before < 15
    assert not any(alive(pid) for pid in runners)
    for job in (long, deaf):
        back = fleet.get(job)
        assert (back.state, back.failures, back.attempt) == (JobState.QUEUED, 0, 1)
        fleet.store.cancel(job.id)
    assert_nothing_lost(fleet, [long, deaf], expected={job.id: JobState.CANCELLED for job in (long, deaf)})


def test_many_sigterms(fleet: Fleet) -> None:
    worker = fleet.start(slots=2)
    jobs = fleet.submit("deaf 600", "sleep 1")
    for job in jobs:
        fleet.runner(job)
    for _ in range(5):
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert worker.wait(20) == 0
    fleet.store.cancel(jobs[0].id)
    fleet.start()
    assert_nothing_lost(fleet, jobs, expected={jobs[0].id: JobState.CANCELLED})


def test_sigterm_right_after_the_last_job_with_rings_to_spare(fleet: Fleet) -> None:
    """A ring that reaches a pool process while the pool closes once held it up for half a minute."""
    slowest = 0.0
    for round_ in range(5):
        worker = fleet.start()
        jobs = [*fleet.submit("ok"), *fleet.submit("ok", priority=-1)]
        fleet.bell.ring("cpu", round_ % 3)
        while not all(fleet.get(job).state.terminal for job in jobs):
            time.sleep(0.002)
        time.sleep(0.002 * round_)
        before = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(15) == 0
        slowest = max(slowest, time.monotonic() - before)
        assert_nothing_lost(fleet, jobs)
    assert slowest < 12, slowest


def test_a_worker_restarted_under_the_same_name(fleet: Fleet) -> None:
    first = fleet.start(name="node-1")
    [job] = fleet.submit("sleep 3")
    fleet.runner(job)
    for pid in family(first.pid):
        kill_hard(pid)
    fleet.start(name="node-1")  # announces itself as the dead one did, and does not keep its lease alive
    [ended] = assert_nothing_lost(fleet, [job])
    assert (ended.worker, ended.attempt, ended.failures) == ("node-1", 2, 1)
