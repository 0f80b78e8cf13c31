"""Keeps one job's lease alive, by a clock of its own, whatever the rest of the supervisor is doing."""

from __future__ import annotations

import logging
import threading
import time

from prunectl.errors import PrunectlError
from prunectl.jobs.model import Lease
from prunectl.jobs.ports import JobStore

logger = logging.getLogger(__name__)


class LeaseKeeper(threading.Thread):
    """Renews every ``heartbeat_seconds``, and sooner when the stage changes.

    The supervisor must end the work when `fenced` turns true: refused, or not renewed until a margin before the lease's
    end, after which another worker may own the job. All times here are monotonic; the database keeps its own.
    """

    def __init__(
        self, store: JobStore, lease: Lease, *, claimed_at: float, lease_seconds: float, heartbeat_seconds: float
    ) -> None:
        super().__init__(name="lease-keeper", daemon=True)
        self._store = store
        self._lease = lease
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._margin = min(10.0, lease_seconds / 4)
        self._renewed_at = claimed_at
        self._refused = False
        self._ended = False
        self._stage: str | None = None
        self._progress = 0.0
        self._wake = threading.Event()
        self.cancel_requested = False

    @property
    def fenced(self) -> bool:
        return self._refused or time.monotonic() > self._renewed_at + self._lease_seconds - self._margin

    def note(self, stage: str | None, progress: float) -> None:
        """What the next heartbeat carries; a new stage is carried at once."""
        changed, self._stage, self._progress = stage != self._stage, stage, progress
        if changed:
            self._wake.set()

    def stop(self) -> None:
        self._ended = True
        self._wake.set()
        self.join(5.0)

    def run(self) -> None:
        pause = self._heartbeat_seconds
        while not self._refused:
            self._wake.wait(pause)
            self._wake.clear()
            if self._ended:
                return
            pause = self._heartbeat_seconds if self._beat() else min(1.0, self._heartbeat_seconds / 4)

    def _beat(self) -> bool:
        asked_at = time.monotonic()  # before the question: the lease can't end sooner than counted from here
        try:
            beat = self._store.heartbeat(
                self._lease, stage=self._stage, progress=self._progress, lease_seconds=self._lease_seconds
            )
        except PrunectlError as error:
            logger.warning("job %s: heartbeat failed, trying again: %s", self._lease.job_id, error.message)
            return False
        except Exception:
            logger.exception("job %s: heartbeat failed, trying again", self._lease.job_id)
            return False
        if beat is None:
            self._refused = True
            return False
        self._renewed_at = asked_at
        self.cancel_requested = beat.cancel_requested
        return True
