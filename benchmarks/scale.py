"""What a fleet asks of PostgreSQL and Redis: simulated workers over the real stores and the real doorbell.

``python -m benchmarks.scale``. A simulated worker does to its servers what a worker does, and nothing else: its sweeper's
rounds, heartbeats, claims, finishes and rings. Two questions:

- What does one of each cost, with as many workers alive and jobs running as there would be? Times the rate at which such
  a fleet does it, that is the load. The cost is processor time of the server's own process, from the kernel, which other
  work on the machine hardly changes; so the server has to run on this machine.
- Does it hold? A fleet does all of it at its real rates for a while; how late it comes, and what is lost, is counted.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import redis as redis_client
from benchmarks import surroundings
from benchmarks.report import Measurement, Report, percentile
from sqlalchemy import Engine, create_engine, event, func, select, text

from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import database_url, make_engine
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.jobs.model import Job
from prunectl.jobs.records import Worker
from prunectl.jobs.sweeper import ENOUGH_ROUNDS, Sweeper
from prunectl.settings import Settings

FLEETS = (1, 10, 100, 1000)
JOB_SECONDS = 300.0
"""A job of five minutes: the rates of claims and finishes follow from it."""
LEASE_SECONDS = 3600.0
CONNECTIONS = 16


def simulated(number: int) -> Worker:
    return Worker(uuid.uuid4().hex, f"worker-{number}", f"host-{number % 250}", number, ("cpu",), 1, "cpu", "0")


class Meter:
    """Processor time and statements of one connection's server process."""

    def __init__(self, engine: Engine) -> None:
        self.statements = 0
        with engine.connect() as connection:
            self._accounts = Path(f"/proc/{connection.scalar(select(func.pg_backend_pid()))}/schedstat")
        event.listen(engine, "after_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.statements += 1

    def milliseconds(self) -> float:
        return int(self._accounts.read_text().split()[0]) / 1e6

    def measure(self, act: Callable[[], object], times: int) -> tuple[list[float], int]:
        """(milliseconds of each of ``times``, statements of one); a first one, which prepares statements, is left out."""
        for _ in range(6):
            act()
        costs = []
        before = self.statements
        for _ in range(times):
            began = self.milliseconds()
            act()
            costs.append(self.milliseconds() - began)
        return costs, round((self.statements - before) / times)


def populate(engine: Engine, workers: int, *, queued: int) -> tuple[list[Worker], list[Job]]:
    """``workers`` that have shown themselves, each with a running job, and ``queued`` jobs that wait."""
    store, rows = SqlJobStore(engine), SqlWorkerStore(engine)
    members = [simulated(number) for number in range(workers)]
    created = surroundings.bodies(queued + workers, salt=uuid.uuid4().hex)
    store.add(surroundings.new_jobs(created, owners=100, priorities=2))
    running = []
    for member in members:
        rows.announce(member)
        job = store.claim(["cpu"], worker=member.name, lease_seconds=LEASE_SECONDS)
        if job is None:
            raise AssertionError("a job was queued for each worker")
        running.append(job)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))  # as autovacuum would, minutes later
    return members, running


def costs(report: Report, database: str, broker: str, home: Path, *, workers: int, times: int) -> None:
    """The cost of one of each with ``workers`` alive, and the load of all of them."""
    engine = create_engine(database_url(database), pool_size=1, max_overflow=0)
    settings = Settings(home=home, database_url=database, broker_url=broker)
    store, bell = SqlJobStore(engine), CeleryDoorbell(make_app(settings))
    members, running = populate(engine, workers, queued=5_000)
    rows = SqlWorkerStore(engine)
    skips = Sweeper(store, rows, bell, settings, announce=members[0], chance=lambda: float("inf"))
    sweeps = Sweeper(store, rows, bell, settings, chance=lambda: 0.0)
    beating = itertools.cycle(running)

    def beat() -> None:
        progress = random.random()
        if store.heartbeat(next(beating).lease, stage=None, progress=progress, lease_seconds=LEASE_SECONDS) is None:
            raise AssertionError("the lease is gone")

    def run_one() -> None:
        job = store.claim(["cpu"], worker="w", lease_seconds=LEASE_SECONDS)
        if job is None or not store.succeed(job.lease, surroundings.result()):
            raise AssertionError("there is a job for everyone")
        store.get(job.id)
        store.queue_counts(at_most=1)

    meter = Meter(engine)
    acts: dict[str, tuple[Callable[[], object], float]] = {
        "sign of life": (skips.sweep, workers / settings.sweep_seconds),
        "sweeper's round": (sweeps.sweep, min(workers, ENOUGH_ROUNDS) / settings.sweep_seconds),
        "heartbeat": (beat, workers / settings.heartbeat_seconds),
        "job (claim, finish, what waits)": (run_one, workers / JOB_SECONDS),
    }
    total = 0.0
    for name, (act, rate) in acts.items():
        spent, statements = meter.measure(act, times)
        share = statistics.mean(spent) / 1000 * rate
        total += share
        note = f"{statements} statements; {rate:,.2f} a second for the fleet: {100 * share:.2f} % of a core"
        report.add(Measurement(f"{workers:,} workers: server time of a {name}", "ms", spent, note=note))
    report.add(Measurement(f"{workers:,} workers: all of it", "% of a core", [100 * total]))
    engine.dispose()


def rings(report: Report, broker: str, home: Path, *, times: int = 200) -> None:
    """What a ring costs Redis, by Redis's own count."""
    bell = CeleryDoorbell(make_app(Settings(home=home, broker_url=broker)))
    bell.ring("cpu")
    client = redis_client.from_url(broker)
    client.config_resetstat()
    bell.ring("cpu", times)
    stats = client.info("commandstats").items()
    calls = sum(item["calls"] for name, item in stats if name not in ("cmdstat_info", "cmdstat_config|resetstat"))
    spent = sum(item["usec"] for name, item in stats if name not in ("cmdstat_info", "cmdstat_config|resetstat"))
    report.add(Measurement("Redis time of a ring", "ms", [spent / times / 1000], note=f"{calls / times:.1f} commands"))
    client.flushdb()


class Fleet:
    """``workers`` who each sweep, claim, beat and finish when it is due; threads take what is due next."""

    def __init__(self, database: str, broker: str, home: Path, *, workers: int, job_seconds: float) -> None:
        self.engine = create_engine(
            database_url(database), pool_size=CONNECTIONS, max_overflow=0, pool_timeout=60, pool_pre_ping=True
        )
        self.settings = Settings(home=home, database_url=database, broker_url=broker)
        self.store, self.bell = SqlJobStore(self.engine), CeleryDoorbell(make_app(self.settings))
        self.members = [simulated(number) for number in range(workers)]
        rows = SqlWorkerStore(self.engine)
        self.sweepers = [
            Sweeper(self.store, rows, self.bell, self.settings, announce=member) for member in self.members
        ]
        self.job_seconds = job_seconds
        self.late: list[float] = []
        self.done: Counter[str] = Counter()
        self._agenda: list[tuple[float, int, str, int, Job | None]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        for number in range(workers):
            self._put(random.uniform(0, self.settings.sweep_seconds), "sweep", number)
            self._put(random.uniform(0, job_seconds), "claim", number)

    def live(self, seconds: float) -> None:
        wanted = round(len(self.members) * (seconds / self.job_seconds + 1))
        self.store.add(surroundings.new_jobs(surroundings.bodies(wanted, salt=uuid.uuid4().hex), owners=100))
        over = time.monotonic() + seconds
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for future in [threads.submit(self._work, over) for _ in range(CONNECTIONS)]:
                future.result()
        self.engine.dispose()

    def _put(self, wait: float, what: str, number: int, job: Job | None = None) -> None:
        with self._changed:
            heapq.heappush(self._agenda, (time.monotonic() + wait, next(self._number), what, number, job))
            self._changed.notify()

    def _take(self, over: float) -> tuple[float, str, int, Job | None] | None:
        with self._changed:
            while (now := time.monotonic()) < over:
                if self._agenda and self._agenda[0][0] <= now:
                    due, _, what, number, job = heapq.heappop(self._agenda)
                    return due, what, number, job
                self._changed.wait(min(0.05, self._agenda[0][0] - now) if self._agenda else 0.05)
        return None

    def _work(self, over: float) -> None:
        while (item := self._take(over)) is not None:
            due, what, number, job = item
            self._do(what, number, job)
            with self._changed:
                self.late.append(time.monotonic() - due)
                self.done[what] += 1

    def _do(self, what: str, number: int, job: Job | None) -> None:
        settings, beat_after = self.settings, self.settings.heartbeat_seconds
        if job is None:
            if what == "sweep":
                self.sweepers[number].sweep()
                self._put(settings.sweep_seconds * random.uniform(0.8, 1.2), "sweep", number)
                return
            job = self.store.claim(["cpu"], worker=self.members[number].name, lease_seconds=settings.lease_seconds)
            if job is None:
                raise AssertionError("jobs were queued for everyone")
            self._put(beat_after, "heartbeat", number, job)
            self._put(self.job_seconds, "finish", number, job)
        elif what == "finish":
            with self._changed:
                self.done["lost"] += not self.store.succeed(job.lease, surroundings.result())
            self.bell.ring("cpu")
            self._put(0.0, "claim", number)
        elif (
            self.store.heartbeat(job.lease, stage=None, progress=0.5, lease_seconds=settings.lease_seconds) is not None
        ):
            self._put(beat_after, "heartbeat", number, job)


def holding(report: Report, fleet: Fleet, *, seconds: float) -> None:
    fleet.live(seconds)
    late, done = fleet.late, fleet.done
    rates = ", ".join(f"{done[what] / seconds:.1f} {what}s/s" for what in ("sweep", "heartbeat", "claim"))
    note = f"{rates}; {done['finish']:,} finished, {done['lost']} of them with a lost lease; worst {max(late):.2f} s"
    measure = (
        f"{len(fleet.members):,} workers live for {seconds:.0f} s: from when something is due until it is done, p95"
    )
    report.add(Measurement(measure, "s", [percentile(late, 0.95)], target="<= 1", note=note))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", help="URL of a local server's maintenance database; without it, one is started")
    parser.add_argument("--redis", help="URL of a Redis that may be flushed; without it, one is started")
    parser.add_argument("--workers", type=int, nargs="*", default=list(FLEETS))
    parser.add_argument("--times", type=int, default=30, help="how often each cost is taken")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the largest fleet lives")
    parser.add_argument("--job-seconds", type=float, default=30.0, help="of the fleet that lives")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/scale.json"))
    chosen = parser.parse_args()
    surroundings.end_well()
    report = Report("scale", ("celery", "redis", "sqlalchemy", "psycopg"))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunectl-bench-")))
        broker = stack.enter_context(surroundings.redis(chosen.redis))
        rings(report, broker, home)
        for workers in chosen.workers:
            database = stack.enter_context(surroundings.postgres(chosen.postgres))
            if not report.versions:
                with make_engine(database).connect() as connection:
                    report.versions["postgresql"] = str(connection.scalar(text("SHOW server_version")))
            costs(report, database, broker, home, workers=workers, times=chosen.times)
        database = stack.enter_context(surroundings.postgres(chosen.postgres))
        alive = Fleet(database, broker, home, workers=max(chosen.workers), job_seconds=chosen.job_seconds)
        holding(report, alive, seconds=chosen.seconds)
    report.finish(chosen.output)


if __name__ == "__main__":
    main()
