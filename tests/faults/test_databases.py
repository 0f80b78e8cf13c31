"""PostgreSQL dies, ends its sessions or falls silent; leases, sweeps and clocks hold."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from prunectl.db import migrate
from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from prunectl.jobs.model import JobState
from support.faults import TcpProxy, assert_nothing_lost, assert_scratch_can_go
from support.fleet import CLOCKS, Fleet, until
from support.queue_stub import python_path
from support.servers import PostgresServer, RedisServer, alive
from support.stores import new_job


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    found = PostgresServer()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def own_fleet(server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """On a PostgreSQL that may be killed, and Redis."""
    url = server.url("postgres")
    migrate.upgrade(url)
    broker = RedisServer()
    fleet = Fleet(tmp_path, database_url=url, broker_url=broker.url)
    fleet.servers_were_killed = True
    try:
        yield fleet
    finally:
        try:
            fleet.close()
        finally:
            broker.kill()
    assert_scratch_can_go(tmp_path)


def test_postgresql_killed_and_restarted_while_jobs_run(server: PostgresServer, own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start(slots=2)
    jobs = fleet.submit("late 1.5", *["sleep 0.3"] * 20)
    fleet.runner(jobs[0])
    server.kill()
    server.start()  # inside the lease: the job goes on
    until(lambda: fleet.get(jobs[0]).state.terminal, "the first job")
    assert fleet.get(jobs[0]).attempt == 1
    server.kill()
    time.sleep(CLOCKS["lease_seconds"] + 1)  # beyond it: whoever has a job gives it up
    server.start()
    assert_nothing_lost(fleet, jobs, seconds=120)


def test_every_session_ended_again_and_again(server: PostgresServer, own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start(slots=2), fleet.start()
    done = threading.Event()
    ended = 0

    def end_sessions() -> None:
        nonlocal ended
        engine = create_engine(server.url("template1").replace("template1", "postgres"), isolation_level="AUTOCOMMIT")
        statement = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND application_name = 'prunectl'"
        )
        with engine.connect() as connection:
            while not done.wait(0.25):
                ended += connection.execute(statement).scalar_one()
        engine.dispose()

    enemy = threading.Thread(target=end_sessions)
    # The test's own store meets the enemy as well, and its answers are part of what is tested: a write may need another try.
    jobs = fleet.submit(*["sleep 0.2"] * 40)
    enemy.start()
    try:
        time.sleep(15)
    finally:
        done.set()
        enemy.join(10)
    assert ended > 40, ended
    assert_nothing_lost(fleet, jobs, seconds=120)


def test_a_database_that_falls_silent_fences_and_the_job_is_done_once(server: PostgresServer, own_fleet: Fleet) -> None:
    fleet = own_fleet
    proxy = TcpProxy(server.port)
    try:
        cut_off = fleet.start(
            name="cut-off", PRUNECTL_DATABASE_URL=f"postgresql+psycopg://prunectl@127.0.0.1:{proxy.port}/postgres"
        )
        [job] = fleet.submit("late 60")
        runner = fleet.runner(job)
        until(lambda: bool(fleet.storage.list("runs")), "the checkpoint")
        proxy.swallow_new = True
        proxy.swallow()
        until(lambda: not alive(runner), "the worker to fence itself", CLOCKS["lease_seconds"] + 2)
        with_tag = {**fleet.get(job).spec, "tags": {"stub": "ok"}}
        _change_spec(fleet, job.id, with_tag)
        fleet.start(name="other")
        [ended] = assert_nothing_lost(fleet, [job])
        assert ended.worker == "other"
        cut_off.kill()
        cut_off.wait()
    finally:
        proxy.close()


def _change_spec(fleet: Fleet, job_id: str, spec: dict[str, object]) -> None:
    engine = make_engine(fleet.settings.database)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET spec = :spec WHERE id = :id"), {"spec": json.dumps(spec), "id": job_id}
        )
    engine.dispose()


_SWEEP = """
import json, sys
from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
store = SqlJobStore(make_engine(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([job.id for job in store.sweep()]))
"""


@pytest.mark.parametrize("sweepers", [2, 10])
def test_sweepers_at_once_expire_each_lease_once(fleet: Fleet, sweepers: int) -> None:
    store = fleet.store
    dead = {added.job.id for added in store.add([new_job() for _ in range(200)])}
    for _ in dead:
        assert store.claim(["cpu"], worker="dead", device="cpu", lease_seconds=-1) is not None
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _SWEEP, fleet.settings.database],
            env={"PYTHONPATH": python_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(sweepers)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    swept = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    everything = [job_id for part in swept for job_id in part]
    assert len(everything) == len(set(everything)) == 200
    assert set(everything) == dead
    assert all(store.get(job_id).failures == 1 for job_id in dead)  # type: ignore[union-attr]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_wrong(fleet: Fleet, hours: int, skewed: Callable[[int], dict[str, str]]) -> None:
    fleet.start(name="wrong", **skewed(hours))
    fleet.start(name="right")
    jobs = fleet.submit(*["sleep 1"] * 8)
    ended = assert_nothing_lost(fleet, jobs)
    assert {job.worker for job in ended} == {"wrong", "right"}
    assert all((job.attempt, job.failures) == (1, 0) for job in ended), "no lease is taken for dead"
    now = fleet.store.now()
    assert all(abs(now - (job.finished_at or 0)) < 120 for job in ended), "times are the database's"
    assert {row.name for row in fleet.worker_rows.workers(alive_within_seconds=5)} == {"wrong", "right"}


@pytest.fixture
def skewed(tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """The environment of a process whose ``time.time`` is off by whole hours; SQLite's clock is the database's and stays.

    A ``sitecustomize`` does it for Python's own clock, which is the only one that our code could have asked.
    """

    def environment(hours: int) -> dict[str, str]:
        directory = tmp_path / f"clock{hours}"
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(
            "import time\n"
            "_time, _time_ns = time.time, time.time_ns\n"
            f"time.time = lambda: _time() + {hours * 3600}\n"
            f"time.time_ns = lambda: _time_ns() + {hours * 3600 * 10**9}\n"
        )
        return {"PYTHONPATH": f"{directory}:{python_path()}"}

    return environment


def test_a_lease_without_an_end_is_swept(fleet: Fleet) -> None:
    """What an old SQLite without fractional clocks once wrote."""
    if "sqlite" not in fleet.settings.database:
        pytest.skip("PostgreSQL always had a clock")
    [job] = fleet.submit("ok")
    assert fleet.store.claim(["cpu"], worker="dead", device="cpu", lease_seconds=1000) is not None
    engine = make_engine(fleet.settings.database)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        connection.execute(text("UPDATE jobs SET lease_until = NULL"))
    engine.dispose()
    fleet.start()
    [ended] = assert_nothing_lost(fleet, [job])
    assert ended.state is JobState.SUCCEEDED
    assert SqlJobStore(make_engine(fleet.settings.database)).get(job.id) == ended
