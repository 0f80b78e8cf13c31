"""How fast jobs are accepted, claimed and finished, how soon an idle worker takes one, and what idling costs.

``python -m benchmarks.queue`` starts a PostgreSQL (with fsync) and a Redis of its own, or takes their URLs. Run it as a
module: as a script, its directory would hide the standard library's ``queue``.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psutil
import redis as redis_client
from benchmarks import surroundings
from benchmarks.report import Measurement, Report, percentile
from benchmarks.stub_worker import NOOP_QUEUE, noop_app
from sqlalchemy import text

from prunectl.cli.host.service import settle
from prunectl.db import migrate
from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.jobs.ringing import MAX_RINGS
from prunectl.settings import Settings
from support.command import Prunectl
from support.service import config_only

WORKERS = 4
PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg")


def accepting(report: Report, database: str, broker: str, home: Path, *, jobs: int, rounds: int) -> None:
    """A sweep of validated bodies until it is committed and the bell is rung, against as many messages one by one.

    Both under the garbage collector's settings of our service, which help Celery as well.
    """
    settle()
    store = SqlJobStore(make_engine(database))
    bell = CeleryDoorbell(make_app(Settings(home=home, database_url=database, broker_url=broker)))
    noop, client = noop_app(broker).tasks["noop"], redis_client.from_url(broker)
    ours, theirs, busy = [], [], []
    for number in range(rounds):
        created = surroundings.bodies(jobs, salt=f"accept-{number}")
        spent = [time.process_time()]
        began = time.perf_counter()
        added = store.add(surroundings.new_jobs(created))
        bell.ring("cpu", MAX_RINGS)
        ours.append(time.perf_counter() - began)
        spent.append(time.process_time())
        assert sum(item.created for item in added) == jobs
        began = time.perf_counter()
        for _ in range(jobs):
            noop.apply_async()
        theirs.append(time.perf_counter() - began)
        spent.append(time.process_time())
        busy.append((spent[1] - spent[0], spent[2] - spent[1]))
        client.flushall()
    mine, celerys = (statistics.median(part) for part in zip(*busy, strict=True))
    note = f"processor time of the submitting process: {mine:.2f} s, Celery's {celerys:.2f} s"
    peer = f"{jobs:,} x apply_async"
    measure = f"{jobs:,} jobs accepted, PostgreSQL"
    report.add(Measurement(measure, "s", ours, theirs, peer, target="<= 2", note=note))
    report.add(Measurement(f"{measure}, against Celery", "s", ours, theirs, peer, target=">= 5", target_is="ratio"))


def requested(report: Report, database: str, broker: str, home: Path, *, seeds: int, rounds: int) -> None:
    """The same number of jobs as one request to the running service: read, checked, expanded, queued and answered."""
    config_only(home / "zoo" / "tiny")
    settings = Settings(home=home, database_url=database, broker_url=broker, model_path=str(home / "zoo"))
    ours = []
    with (
        surroundings.api(settings) as api,
        httpx2.Client(base_url=api.url, headers=api.headers, timeout=60) as client,
    ):
        for number in range(rounds):
            shares = [index / 20 for index in range(10)]
            grid = {"heads": shares, "ffn": shares, "seed": list(range(number * seeds, (number + 1) * seeds))}
            began = time.perf_counter()
            answer = client.post("/v1/sweeps", json={"base": {"model": "tiny"}, "grid": grid})
            ours.append(time.perf_counter() - began)
            answer.raise_for_status()
            assert answer.json()["counts"]["queued"] == 100 * seeds
    measure = f"{100 * seeds:,} jobs of a sweep over HTTP, from the request to the 202"
    report.add(Measurement(measure, "s", ours, target="<= 2"))


def claiming(report: Report, database: str, broker: str, home: Path, *, seconds: float, rounds: int) -> None:
    """Jobs that four workers finish with a runner that answers at once, against no-op tasks of plain Celery."""
    store, client = SqlJobStore(make_engine(database)), redis_client.from_url(broker)
    bell = CeleryDoorbell(make_app(Settings(home=home, database_url=database, broker_url=broker)))
    noop = noop_app(broker).tasks["noop"]
    for number in range(2):
        created = surroundings.bodies(10_000, salt=f"claim-{number}")
        store.add(surroundings.new_jobs(created, owners=200, priorities=3))
    queued = store.queue_counts()["cpu"][0]
    ours, theirs, each = [], [], []
    for number in range(rounds):
        client.flushall()
        times = home / f"times-{number}"
        times.touch()
        with surroundings.processes(WORKERS, "benchmarks.stub_worker", "ring", str(home), database, broker, str(times)):
            bell.ring("cpu", MAX_RINGS)
            surroundings.wait_until(lambda file=times: file.read_text().count("\n") > 20, "the first jobs")
            began = time.time()
            time.sleep(seconds)
            ended = time.time()
        lines = [tuple(map(float, line.split())) for line in times.read_text().splitlines()]
        counted = [(claim, finish) for at, claim, finish in lines if began <= at <= ended]
        ours.append(len(counted) / seconds)
        each += counted
        client.flushall()
        for _ in range(6_000):
            noop.apply_async()
        with surroundings.processes(WORKERS, "benchmarks.stub_worker", "noop", broker):
            surroundings.wait_until(lambda: client.llen(NOOP_QUEUE) < 5_900, "the first tasks")
            before, began = client.llen(NOOP_QUEUE), time.perf_counter()
            while time.perf_counter() - began < seconds and client.llen(NOOP_QUEUE):
                time.sleep(0.02)
            theirs.append((before - client.llen(NOOP_QUEUE)) / (time.perf_counter() - began))
    measure = f"claim + finish, {WORKERS} workers, {queued:,} queued by 200 owners"
    report.add(
        Measurement(
            measure, "jobs/s", ours, theirs, "plain Celery no-op tasks", "higher", ">= 100", note="runner stubbed"
        )
    )
    both = [1000 * (claim + finish) for claim, finish in each]
    claims = [1000 * claim for claim, _ in each]
    note = f"p95 {percentile(both, 0.95):.1f} ms; the claim alone p50 {percentile(claims, 0.5):.1f} ms; n={len(both)}"
    report.add(
        Measurement(
            f"database time of a job, p50, {WORKERS} workers", "ms", [percentile(both, 0.5)], target="<= 10", note=note
        )
    )


def runner_start(report: Report, *, rounds: int) -> None:
    """What a cold runner imports before its first stage: the cost that the measurement above leaves out."""
    ours = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", "import prunectl.worker.pipeline"], check=True)
        ours.append(time.perf_counter() - began)
    report.add(Measurement("start of a real runner: its process and imports", "s", ours))


def pickup(report: Report, database: str, broker: str | None, home: Path, *, jobs: int, target: str) -> None:
    """From the 202 to the claim by the one, idle worker. Both clocks are this machine's."""
    zoo = home / "zoo"
    config_only(zoo / "tiny")
    settings = Settings(home=home, database_url=database, broker_url=broker, model_path=str(zoo))
    store, times = SqlJobStore(make_engine(database)), home / "pickup"
    times.touch()
    waits = []
    arguments = ("ring", str(home), database, settings.broker, str(times))
    with (
        surroundings.api(settings) as api,
        surroundings.processes(1, "benchmarks.stub_worker", *arguments),
        httpx2.Client(base_url=api.url, headers=api.headers) as client,
    ):
        for number in range(jobs + 1):
            body = {"model": "tiny", "recipe": {"heads": 0.5, "seed": number}, "device": "cpu"}
            response = client.post("/v1/jobs", json=body)
            accepted = time.time()
            response.raise_for_status()
            job_id = response.json()["id"]
            surroundings.wait_until(lambda job_id=job_id: _ended(store, job_id), "the job")
            waits.append(store.get(job_id).started_at - accepted)
            time.sleep(random.uniform(0.2, 1.3))  # not in step with a worker that polls
    name = "Redis, PostgreSQL" if broker else "embedded"
    waits = [max(0.0, wait) for wait in waits[1:]]  # the first waits for the worker's start
    report.add(
        Measurement(
            f"idle worker, from 202 to the claim, {name}", "s", waits, target=target, note=f"longest {max(waits):.3f} s"
        )
    )


def _ended(store: SqlJobStore, job_id: str) -> bool:
    job = store.get(job_id)
    return job is not None and job.state.terminal


def idle_cost(report: Report, home: Path, *, seconds: float) -> None:
    """The embedded stack with nothing to do: supervisor, service, worker and its pool."""
    prunectl = Prunectl(home)
    prunectl.ok("up")
    try:
        time.sleep(5)
        stack = [process for process in psutil.process_iter() if _belongs(process, home / "prunectl")]
        before = [sum(process.cpu_times()[:2]) for process in stack]
        time.sleep(seconds)
        used = sum(sum(process.cpu_times()[:2]) - cpu for process, cpu in zip(stack, before, strict=True))
        memory = [process.memory_full_info() for process in stack]
    finally:
        prunectl.run("down")
    share = 100 * used / seconds
    pss, rss = (sum(getattr(item, kind) for item in memory) / 2**20 for kind in ("pss", "rss"))
    note = f"{len(stack)} processes; memory {pss:.0f} MiB (shared pages counted once; {rss:.0f} MiB otherwise)"
    report.add(Measurement("idle embedded stack, share of a core", "%", [share], target="< 1", note=note))


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("PRUNECTL_HOME") == str(home)
    except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", help="URL of a server's maintenance database; without it, one is started")
    parser.add_argument("--redis", help="URL of a Redis that may be flushed; without it, one is started")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a round of claims")
    parser.add_argument("--only", nargs="*", default=["accept", "claim", "runner", "pickup", "idle"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/queue.json"))
    chosen = parser.parse_args()
    surroundings.end_well()
    report = Report("queue", PACKAGES)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunectl-bench-")))
        broker = stack.enter_context(surroundings.redis(chosen.redis))
        database = stack.enter_context(surroundings.postgres(chosen.postgres))
        with make_engine(database).connect() as connection:
            report.versions["postgresql"] = str(connection.scalar(text("SHOW server_version")))
        report.versions["redis-server"] = str(redis_client.from_url(broker).info()["redis_version"])
        if "accept" in chosen.only:
            accepting(report, database, broker, home, jobs=chosen.jobs, rounds=chosen.rounds)
            with surroundings.postgres(chosen.postgres) as empty:
                requested(report, empty, broker, home / "service", seeds=chosen.jobs // 100, rounds=chosen.rounds)
        if "claim" in chosen.only:
            claiming(report, database, broker, home, seconds=chosen.seconds, rounds=chosen.rounds)
        if "runner" in chosen.only:
            runner_start(report, rounds=chosen.rounds)
        if "pickup" in chosen.only:
            with surroundings.postgres(chosen.postgres) as empty:
                pickup(report, empty, broker, home / "redis", jobs=12, target="<= 0.2")
            embedded = home / "embedded"
            embedded.mkdir()
            sqlite = f"sqlite:///{embedded}/prunectl.db"
            migrate.upgrade(sqlite)
            pickup(report, sqlite, None, embedded, jobs=12, target="<= 1.2")
        if "idle" in chosen.only:
            idle = home / "idle"
            idle.mkdir()
            idle_cost(report, idle, seconds=20)
    report.finish(chosen.output)


if __name__ == "__main__":
    main()
