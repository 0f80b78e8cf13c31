"""Starts a worker: a Celery worker whose pool processes supervise jobs, and a sweeper beside it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from prunectl.db import migrate
from prunectl.db.job_store import SqlJobStore
from prunectl.db.search_store import SqlSearchStore
from prunectl.db.session import make_engine
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.dispatch import QUEUES, CeleryDoorbell, job_events, make_app, node_name
from prunectl.errors import InvalidInput, PrunectlError, Unavailable, nearest
from prunectl.jobs.leftovers import chores
from prunectl.jobs.records import Worker
from prunectl.jobs.sweeper import Sweeper
from prunectl.settings import Settings
from prunectl.storage import open_storage
from prunectl.version import version
from prunectl.worker import logs
from prunectl.worker.app import make_worker_app
from prunectl.worker.gpu import visible_gpus
from prunectl.worker.runner_process import RUNNER, TEMPLATE
from prunectl.worker.scratch import collect_scratch
from prunectl.worker.slot_board import SlotBoard
from prunectl.worker.stop_flag import StopFlag
from prunectl.worker.supervisor import Slot, Supervisor
from prunectl.worker.watchdog import Watchdog, restart

logger = logging.getLogger(__name__)

UNREAD_RESULT_RETRIES = 10  # of 0.1 s each


def serve(
    queues: Sequence[str],
    slots: int,
    name: str | None,
    settings: Settings,
    *,
    runner: Sequence[str] = RUNNER,
    template: Sequence[str] = TEMPLATE,
) -> int:
    """Work until told to stop; the exit status.

    SIGTERM (or Ctrl-C): the jobs are handed back, which burns no retry; a second one ends their runners without grace.
    A worker that hears no ring although work waits, or whose Celery fails after it was ready, starts itself anew, with the
    same process id.
    Raises InvalidInput for wrong arguments, Unavailable where the database doesn't answer or isn't migrated.
    """
    _check(slots, settings)
    logs.configure(settings.log_level, settings.log_format)
    gpus = visible_gpus() if "gpu" in queues else []
    queues = _served(queues, gpus)
    _check_revision(settings.database)
    me = Worker(
        token=uuid.uuid4().hex,
        name=name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
        host=socket.gethostname(),
        pid=os.getpid(),
        queues=tuple(queues),
        slots=slots,
        device=f"{len(gpus)} x {gpus[0]}" if gpus else "cpu",
        version=version(),
    )
    stop, board = StopFlag(), SlotBoard(slots)
    app = make_worker_app(settings, _serve_one_in(settings, me, stop, board, runner, template))
    engine = make_engine(settings.database)
    store, workers = SqlJobStore(engine), SqlWorkerStore(engine)
    storage = open_storage(settings.storage)
    doorbell = CeleryDoorbell(make_app(settings))
    sweeper = Sweeper(
        store,
        workers,
        doorbell,
        settings,
        announce=me,
        chores=[*chores(store, storage, settings), lambda: collect_scratch(settings.home / "scratch")],
        events=job_events(settings, me.name),
        searches=SqlSearchStore(engine),
    )
    watchdog = Watchdog(store, me.queues, board, stop, doorbell.ping, settings)
    watchdog.start()
    ready = threading.Event()

    def on_ready() -> None:
        ready.set()
        sweeper.start()

    try:
        status = _run_celery(app, queues, slots, me.name, settings, stop, on_ready=on_ready)
    finally:
        sweeper.stop()
        try:
            workers.forget(me.token)
        except PrunectlError as error:
            logger.warning("can't sign off, the sweepers will: %s", error.message)
        watchdog.finish()
    if status != 0 and ready.is_set() and not stop:
        # kombu 5.7 fails so when Redis goes away while a ring is held that no slot has taken yet. One that was never ready
        # has a reason that a new start would only meet again.
        logger.error("Celery has failed (exit %d): restarting this worker", status)
        restart()
    if watchdog.restart_wanted:
        restart()
    return status


def _check(slots: int, settings: Settings) -> None:
    if slots < 1:
        raise InvalidInput("a worker needs at least 1 slot", field="slots", value=slots)
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        raise InvalidInput(
            f"a heartbeat every {settings.heartbeat_seconds:g} s can't keep a lease of {settings.lease_seconds:g} s",
            hint="PRUNECTL_HEARTBEAT_SECONDS at most half of PRUNECTL_LEASE_SECONDS; a sixth is usual",
            field="heartbeat_seconds",
            value=settings.heartbeat_seconds,
        )


def _served(queues: Sequence[str], gpus: Sequence[str]) -> list[str]:
    """The queues to serve, each once. Their order means nothing: a claim takes the best job of all."""
    for queue in queues:
        if queue not in QUEUES:
            close = nearest(queue, QUEUES)
            raise InvalidInput(
                f"unknown queue {queue!r}: one of {', '.join(QUEUES)}",
                hint=f"did you mean {close}?" if close else None,
                field="queues",
                value=queue,
            )
    wanted = [queue for queue in reversed(QUEUES) if queue in queues]
    if "gpu" in wanted and not gpus:
        if wanted == ["gpu"]:
            raise Unavailable(
                "no GPU is visible here, so the queue gpu can't be served", hint="prunectl worker --queues cpu"
            )
        logger.warning(
            "no GPU is visible here: serving %s only", ", ".join(queue for queue in wanted if queue != "gpu")
        )
        wanted.remove("gpu")
    if not wanted:
        raise InvalidInput(f"no queue to serve: one or more of {', '.join(QUEUES)}", field="queues", value=list(queues))
    return wanted


def _check_revision(database: str) -> None:
    found, wanted = migrate.current(database), migrate.head()
    if migrate.behind(found):
        raise Unavailable(
            f"the database is at revision {found or 'none'}, this version needs {wanted}", hint="run: prunectl migrate"
        )
    if found != wanted:
        logger.warning("the database is at revision %s, of a later version than this worker's (%s)", found, wanted)


def _serve_one_in(
    settings: Settings, me: Worker, stop: StopFlag, board: SlotBoard, runner: Sequence[str], template: Sequence[str]
) -> Callable[[], object]:
    """What a ring does in a pool process. The supervisor is made there, so that no connection crosses the fork."""
    made: dict[int, Supervisor] = {}

    def serve_one() -> object:
        pid = os.getpid()
        if pid not in made:
            made.clear()
            made[pid] = Supervisor(
                SqlJobStore(make_engine(settings.database)),
                open_storage(settings.storage),
                CeleryDoorbell(make_app(settings)),
                settings,
                Slot(me.name, me.queues, _slot_index(), me.slots),
                stop,
                runner=runner,
                template=template,
                events=job_events(settings, me.name),
                searches=SqlSearchStore(make_engine(settings.database)),
            )
        with board.woken(_slot_index()):
            return made[pid].serve_one()

    return serve_one


def _slot_index() -> int:
    from billiard.process import current_process

    return int(getattr(current_process(), "index", 0))


def _run_celery(
    app: Any,
    queues: Sequence[str],
    slots: int,
    name: str,
    settings: Settings,
    stop: StopFlag,
    *,
    on_ready: Callable[[], None],
) -> int:
    import billiard.pool
    from celery import signals
    from celery.exceptions import SecurityWarning

    # Celery's warm shutdown waits for the running tasks. Ours end soon after they are told to, so warm it is; the soft
    # shutdown behind REMAP_SIGTERM sleeps its whole time inside the signal handler and tells the tasks nothing.
    class TellingWorker(app.Worker):
        def on_start(self) -> None:
            super().on_start()  # installs Celery's handlers
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, _first_telling(stop, signal.getsignal(number)))

    def ready(**_: Any) -> None:
        on_ready()
        logger.info("worker %s serves %s with %d slot(s)", name, ", ".join(queues), slots)

    def keep_our_logging(**_: Any) -> None:
        """Being connected is enough: Celery then leaves logging alone."""

    # A ring that is handed to a pool process while the pool closes is struck off by its parent, which then doesn't read
    # the answer that the process waits 30 s to see read. Our answers say nothing: one second is enough.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = UNREAD_RESULT_RETRIES
    # Celery warns root because pickled messages could do anything; ours accept nothing but JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    signals.setup_logging.connect(keep_our_logging)
    signals.worker_ready.connect(ready)
    try:
        worker = TellingWorker(
            queues=list(queues),
            concurrency=slots,
            hostname=node_name(name),
            loglevel=settings.log_level.upper(),
            optimization="fair",
            quiet=True,
            # Workers have nothing to tell each other: who is alive stands in the database. Mingling costs a second.
            without_gossip=True,
            without_mingle=True,
            # Those who watch events know by heartbeats who is there.
            without_heartbeat=not settings.celery_events,
        )
        worker.start()
    finally:
        signals.worker_ready.disconnect(ready)
        signals.setup_logging.disconnect(keep_our_logging)
    return int(worker.exitcode or 0)


def _first_telling(stop: StopFlag, then: Any) -> Callable[[int, Any], None]:
    parent = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() == parent:  # a pool process inherits what it doesn't reset
            stop.raise_level()
        if callable(then):
            then(number, frame)

    return handle
