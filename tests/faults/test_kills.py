"""``kill -9``, at every point and at random: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable

import pytest

from support.faults import assert_nothing_lost, paused
from support.fleet import Fleet, descendants, until
from support.queue_stub import RUNNER_POINTS, SUPERVISOR_POINTS
from support.servers import alive, kill_hard


def pool_of(worker: subprocess.Popen[bytes]) -> list[int]:
    """Pids of a worker's pool processes."""
    return [pid for pid in descendants(worker.pid) if parent_of(pid) == worker.pid]


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("victim", ["worker", "pool processes", "runners"])
def test_killed_at_five_points(fleet: Fleet, victim: str) -> None:
    worker = fleet.start(slots=5)
    points = RUNNER_POINTS if victim == "runners" else SUPERVISOR_POINTS
    jobs = {point: fleet.submit("ok", pause=point)[0] for point in points}
    others = fleet.submit(*["ok"] * 5, priority=-1)
    for job in jobs.values():
        paused(fleet, job)
    family = descendants(worker.pid)
    if victim == "worker":
        kill_hard(worker.pid)
        until(lambda: not any(alive(pid) for pid in family), "its processes to die with it", 5)
        fleet.start(slots=2)
    elif victim == "pool processes":
        fleet.pools_were_killed = True
        for pid in pool_of(worker):
            kill_hard(pid)
    else:
        for job in jobs.values():
            kill_hard(fleet.runner(job))
    assert_nothing_lost(fleet, [*jobs.values(), *others])
    for point, job in jobs.items():
        # A runner that has reported a whole result has done its work: how it then ends is nobody's concern.
        once = victim == "runners" and point == "reported"
        assert (fleet.get(job).attempt, fleet.get(job).failures) == ((1, 0) if once else (2, 1)), point
    assert victim == "worker" or worker.poll() is None


def test_two_hundred_jobs_under_random_kills(fleet: Fleet) -> None:
    seed = int(os.environ.get("PRUNECTL_FAULT_SEED", "20260101"))
    chance = random.Random(seed)
    workers = [fleet.start(slots=2), fleet.start(slots=2)]
    fleet.pools_were_killed = True
    jobs = fleet.submit(*["sleep 0.3"] * 200, max_failures=50)
    started, kills = time.monotonic(), {"worker": 0, "pool process": 0, "runner": 0}
    while any(not job.state.terminal for job in map(fleet.get, jobs)):
        assert time.monotonic() - started < 400, f"seed {seed}: {kills}"
        time.sleep(chance.uniform(0.5, 2.5))
        if sum(kills.values()) >= 40:
            continue
        victim = chance.choice(["worker", "pool process", "runner", "runner"])
        index = chance.randrange(len(workers))
        pool = pool_of(workers[index])
        runners = [pid for parent in pool for pid in descendants(parent)]  # and their templates
        if victim == "worker":
            kill_hard(workers[index].pid)
            workers[index] = fleet.start(slots=2)
        elif candidates := (pool if victim == "pool process" else runners):
            kill_hard(chance.choice(candidates))
        else:
            continue
        kills[victim] += 1
    assert_nothing_lost(fleet, jobs)
    assert sum(kills.values()) >= 8, kills


def test_sweepers_killed_while_they_sweep(fleet: Fleet, sweeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    worker = fleet.start()
    jobs = fleet.submit(*["sleep 0.2"] * 6)
    for _ in range(4):
        running = sweeper()
        time.sleep(0.4)
        kill_hard(running.pid)
        running.wait()
    kill_hard(worker.pid)  # with what it sweeps; nobody is left
    fleet.start()
    assert_nothing_lost(fleet, jobs)
