"""A broker that dies, forgets, repeats itself or falls silent costs time, and never a job."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.settings import Settings
from support.faults import TcpProxy, assert_nothing_lost
from support.fleet import Fleet, until

from .conftest import Stack


def pending(stack: Stack, fleet: Fleet) -> int:
    """Messages in the queue cpu."""
    if stack.redis is not None:
        return int(redis.Redis(port=stack.redis.port).llen("prunectl:cpu"))
    return len(list((fleet.settings.broker_directory / "messages").glob("*.msg")))


def drop(stack: Stack, fleet: Fleet, share: float) -> int:
    """Delete a share of the waiting messages; how many."""
    if stack.redis is not None:
        server = redis.Redis(port=stack.redis.port)
        wanted = int(server.llen("prunectl:cpu") * share)
        return sum(server.rpop("prunectl:cpu") is not None for _ in range(wanted))
    messages = sorted((fleet.settings.broker_directory / "messages").glob("*.msg"))
    chosen = messages[: int(len(messages) * share)]
    for path in chosen:
        path.unlink(missing_ok=True)
    return len(chosen)


def test_messages_deleted_while_jobs_run(stack: Stack, fleet: Fleet) -> None:
    jobs = fleet.submit(*["ok"] * 40)
    assert pending(stack, fleet) == 40
    assert drop(stack, fleet, 0.5) == 20
    fleet.start(slots=2)
    until(lambda: any(fleet.get(job).state.terminal for job in jobs), "the first job")
    if stack.redis is not None:
        redis.Redis(port=stack.redis.port).flushall()
    else:
        drop(stack, fleet, 1.0)
    assert_nothing_lost(fleet, jobs, seconds=120)
    assert [len(fleet.starts(job)) for job in jobs] == [1] * 40


def test_a_thousand_rings_for_a_hundred_jobs_run_each_once(stack: Stack, fleet: Fleet) -> None:
    fleet.start(slots=2), fleet.start(slots=2)
    jobs = fleet.submit(*["ok"] * 100)
    for _ in range(9):
        fleet.bell.ring("cpu", 100)
    assert_nothing_lost(fleet, jobs, seconds=180)
    assert [len(fleet.starts(job)) for job in jobs] == [1] * 100
    assert all(fleet.get(job).attempt == 1 for job in jobs)


@pytest.mark.parametrize("stack", ["Redis, SQLite", "Redis, PostgreSQL"], indirect=True)
def test_redis_killed_without_persistence(stack: Stack, fleet: Fleet) -> None:
    assert stack.redis is not None
    fleet.servers_were_killed = True
    fleet.start(), fleet.start()
    [long] = fleet.submit("sleep 4", priority=1)
    fleet.runner(long)
    jobs = fleet.submit(*["sleep 0.1"] * 50)
    stack.redis.kill()
    before = time.monotonic()
    more = fleet.submit("ok", "ok")  # with nobody to ring
    assert time.monotonic() - before < 3.0, "who submits does not wait for the broker"
    time.sleep(3)
    stack.redis.start()
    assert pending(stack, fleet) == 0
    assert_nothing_lost(fleet, [long, *jobs, *more], seconds=180)
    assert fleet.get(long).attempt == 1, "a broker's absence does not end a job"


@pytest.fixture
def proxied(stack: Stack, tmp_path: Path) -> Iterator[tuple[Fleet, TcpProxy]]:
    """Workers that reach Redis through a proxy; rings of the test itself go there directly."""
    assert stack.redis is not None
    proxy = TcpProxy(stack.redis.port)
    fleet = Fleet(tmp_path, database_url=stack.database, broker_url=stack.broker)
    fleet.servers_were_killed = True
    try:
        yield fleet, proxy
    finally:
        try:
            fleet.close()
        finally:
            proxy.close()


@pytest.mark.parametrize("stack", ["Redis, PostgreSQL"], indirect=True)
def test_a_worker_on_a_half_open_connection_consumes_again(proxied: tuple[Fleet, TcpProxy]) -> None:
    fleet, proxy = proxied
    worker = fleet.start(PRUNECTL_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0")
    assert_nothing_lost(fleet, fleet.submit("ok"))
    proxy.swallow()
    jobs = fleet.submit("ok", "ok")
    assert_nothing_lost(fleet, jobs, seconds=60)
    assert worker.poll() is None
    assert "restarting this worker" not in (fleet.settings.home / "workers.log").read_text()


@pytest.mark.parametrize("stack", ["Redis, PostgreSQL"], indirect=True)
def test_a_worker_that_stopped_consuming_restarts_itself(proxied: tuple[Fleet, TcpProxy]) -> None:
    fleet, proxy = proxied
    worker = fleet.start(PRUNECTL_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0", PRUNECTL_STALL_SECONDS="2")
    assert_nothing_lost(fleet, fleet.submit("ok"))
    [before] = fleet.worker_rows.workers()
    proxy.swallow()
    started = time.monotonic()
    jobs = fleet.submit("ok", "ok")
    assert_nothing_lost(fleet, jobs, seconds=60)
    print(f"consumes again after {time.monotonic() - started:.1f} s")  # noqa: T201
    assert "restarting this worker" in (fleet.settings.home / "workers.log").read_text()
    assert worker.poll() is None, "the same process"
    alive = fleet.worker_rows.workers
    until(lambda: before.token not in {row.token for row in alive(alive_within_seconds=3)}, "the old row to age", 10)


@pytest.mark.parametrize("stack", ["Redis, PostgreSQL"], indirect=True)
def test_a_worker_on_a_half_open_connection_ends_within_seconds(proxied: tuple[Fleet, TcpProxy]) -> None:
    fleet, proxy = proxied
    worker = fleet.start(PRUNECTL_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0")
    proxy.swallow_new = True
    proxy.swallow()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0


def test_a_ring_into_silence_costs_seconds(tmp_path: Path) -> None:
    with_nobody = TcpProxy(1)
    with_nobody.swallow_new = True
    bell = CeleryDoorbell(make_app(Settings(home=tmp_path, broker_url=f"redis://127.0.0.1:{with_nobody.port}/0")))
    before = time.monotonic()
    bell.ring("cpu", 5)
    assert time.monotonic() - before < 8
    with_nobody.close()


def test_redis_frozen_and_thawed(stack: Stack, fleet: Fleet) -> None:
    if stack.redis is None:
        pytest.skip("the file transport has no server")
    fleet.servers_were_killed = True
    fleet.start()
    stack.redis.freeze()
    jobs = fleet.submit("ok", "ok", "ok")
    time.sleep(12)
    stack.redis.thaw()
    assert_nothing_lost(fleet, jobs, seconds=60)
