"""What is wrong, found by asking every part that jobs depend on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prunectl.jobs.ports import JobStore, Storage, WorkerStore
from prunectl.jobs.records import Worker
from prunectl.jobs.sweeper import alive_within_seconds
from prunectl.settings import Settings
from prunectl.version import version

MAX_CLOCK_SKEW_SECONDS = 30.0
_PROBE = "health/probe"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``hint`` says what to do where it is not ok."""

    name: str
    ok: bool
    detail: str
    hint: str | None = None


class Doctor:
    """Runs the checks. ``revision`` gives (the database's, the code's) migration; ``ping_broker`` raises where it can't be reached."""

    def __init__(
        self,
        *,
        store: JobStore,
        workers: WorkerStore,
        storage: Storage,
        revision: Callable[[], tuple[str | None, str]],
        ping_broker: Callable[[], None],
        settings: Settings,
    ) -> None:
        self._alive_within = alive_within_seconds(settings)
        self._store = store
        self._workers = workers
        self._storage = storage
        self._revision = revision
        self._ping_broker = ping_broker

    def service_checks(self) -> list[Check]:
        """Database, migrations, storage and broker, as seen from this process."""
        return [self._database(), self._migrations(), self._storage_writable(), self._broker()]

    def all_checks(self) -> list[Check]:
        checks = self.service_checks()
        if not checks[0].ok:
            return checks
        alive = self._workers.workers(alive_within_seconds=self._alive_within)
        return [*checks, self._clock(), *self._queues(alive), *self._versions(alive)]

    def _database(self) -> Check:
        return _tried(
            "database", lambda: f"answers; its clock says {self._store.now():.0f}", "check PRUNECTL_DATABASE_URL"
        )

    def _migrations(self) -> Check:
        def compare() -> str:
            current, head = self._revision()
            if current != head:
                raise RuntimeError(f"the database is at revision {current}, this version needs {head}")
            return f"at {head}"

        return _tried("migrations", compare, "run prunectl migrate")

    def _storage_writable(self) -> Check:
        def probe() -> str:
            self._storage.write(_PROBE, b"ok")
            if self._storage.read(_PROBE) != b"ok":
                raise RuntimeError("what was written does not come back")
            return f"writable: {self._storage.uri('')}"

        return _tried("storage", probe, "check PRUNECTL_STORAGE_URL, its permissions and free space")

    def _broker(self) -> Check:
        def ping() -> str:
            self._ping_broker()
            return "answers"

        return _tried(
            "broker", ping, "check PRUNECTL_BROKER_URL; jobs are kept in the database and run when it is back"
        )

    def _clock(self) -> Check:
        skew = abs(self._store.now() - time.time())
        return Check(
            "clock",
            skew <= MAX_CLOCK_SKEW_SECONDS,
            f"{skew:.1f} s between the database's clock and this machine's",
            None
            if skew <= MAX_CLOCK_SKEW_SECONDS
            else "leases use the database's clock alone; synchronise clocks for readable times",
        )

    def _queues(self, alive: Iterable[Worker]) -> list[Check]:
        served = {queue for worker in alive for queue in worker.queues}
        waiting = {name: queued for name, (queued, _) in self._store.queue_counts().items() if queued}
        if not served:
            waiting.setdefault("cpu", 0)
        return [
            Check(
                f"queue {name}",
                name in served,
                f"{queued} waiting, " + ("served" if name in served else "no live worker serves it"),
                None if name in served else f"start one: prunectl worker --queues {name}",
            )
            for name, queued in sorted(waiting.items())
        ]

    @staticmethod
    def _versions(alive: Iterable[Worker]) -> list[Check]:
        ours = version()
        return [
            Check(
                f"worker {worker.name}",
                worker.version == ours,
                f"version {worker.version}, device {worker.device}",
                None if worker.version == ours else f"the service runs {ours}: upgrade the worker",
            )
            for worker in alive
        ]


def _tried(name: str, probe: Callable[[], str], hint: str) -> Check:
    # A diagnosis must survive whatever is wrong: any exception is its finding.
    try:
        return Check(name, True, probe())
    except Exception as error:  # noqa: BLE001
        return Check(name, False, f"{type(error).__name__}: {error}".splitlines()[0], hint)
