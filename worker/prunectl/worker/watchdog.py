"""Watches a worker from inside: ends it when its end takes too long, and restarts it when it hears no ring any more.

Celery has been seen to hang in both: a connection that died half-open leaves a consumer that waits for ever, and a ring
that arrives with SIGTERM leaves a pool process whose last word nobody reads.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from prunectl.errors import PrunectlError
from prunectl.jobs.ports import JobStore
from prunectl.settings import Settings
from prunectl.worker.slot_board import SlotBoard
from prunectl.worker.stop_flag import StopFlag

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
CLOSING_SECONDS = 8.0
"""How long Celery may take to end once no slot has work; it usually needs one or two."""


class Watchdog(threading.Thread):
    """A daemon thread of the worker's parent process, from before Celery starts until after it has ended.

    It asks for a restart when work that we serve has waited for ``settings.stall_seconds`` while every slot was idle, no
    ring arrived, and the broker answers a connection of its own. A broker that is down is not our fault, and a job that
    runs is never ended for the sake of one that waits. ``ping`` raises PrunectlError where the broker doesn't answer.
    """

    def __init__(
        self,
        store: JobStore,
        queues: Sequence[str],
        board: SlotBoard,
        stop: StopFlag,
        ping: Callable[[], None],
        settings: Settings,
        *,
        end: Callable[[bool], None] | None = None,
        ask_to_stop: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._store = store
        self._queues = queues
        self._board = board
        self._stop_flag = stop
        self._ping = ping
        self._stall_seconds = settings.stall_seconds
        # A slot that is told to stop gives its runner the grace, and its lease bounds how long it waits for the database.
        self._longest_stop_seconds = settings.cancel_grace_seconds + settings.lease_seconds + CLOSING_SECONDS
        self._end = end or _end_process
        self._ask_to_stop = ask_to_stop or (lambda: os.kill(os.getpid(), signal.SIGTERM))
        self._finished = threading.Event()
        self._look_at = time.monotonic() + self._stall_seconds
        self._waiting_since: float | None = None
        self._stopping_since: float | None = None
        self._idle_since: float | None = None
        self.restart_wanted = False
        """Whether the worker ends because it heard nothing; then it has to start anew."""

    def finish(self) -> None:
        """The worker has ended by itself."""
        self._finished.set()
        if self.is_alive():
            self.join(2 * TICK_SECONDS)

    def run(self) -> None:
        while not self._finished.wait(TICK_SECONDS):
            now = time.monotonic()
            if self._stop_flag:
                self._watch_the_end(now)
            elif not self.restart_wanted and now >= self._look_at:
                self._look(now)

    def _watch_the_end(self, now: float) -> None:
        self._stopping_since = now if self._stopping_since is None else self._stopping_since
        if self._board.busy:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        overdue = self._idle_since is not None and now - self._idle_since > CLOSING_SECONDS
        if overdue or now - self._stopping_since > self._longest_stop_seconds:
            logger.warning("the worker did not end %.0f s after it was told to: ending it", now - self._stopping_since)
            self._end(self.restart_wanted)

    def _look(self, now: float) -> None:
        """One look; the next is soon while something seems wrong, and otherwise when it could have become so."""
        self._look_at = now + min(15.0, self._stall_seconds / 4)
        heard_at = self._board.woken_at
        if self._board.busy or now - heard_at < self._stall_seconds or not self._work_waits():
            self._waiting_since = None
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        if now - self._waiting_since < self._stall_seconds / 2 or not self._broker_answers():
            return
        logger.error(
            "work waits, every slot is idle and no ring was heard for %.0f s: restarting this worker", now - heard_at
        )
        self.restart_wanted = True
        self._ask_to_stop()

    def _work_waits(self) -> bool:
        try:
            counts = self._store.queue_counts(at_most=1)
        except PrunectlError as error:
            logger.warning("watchdog: %s", error.message)
            return False
        return any(counts.get(queue, (0, 0))[0] for queue in self._queues)

    def _broker_answers(self) -> bool:
        try:
            self._ping()
        except PrunectlError as error:
            logger.warning("watchdog: %s", error.message)
            return False
        return True


def restart() -> None:
    """Become this program again: the same process id, so that whoever started it notices nothing."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _end_process(restart_wanted: bool) -> None:
    """At once. The pool processes are killed with the thread that started them, and their runners with them."""
    if restart_wanted:
        restart()
    os._exit(0)
