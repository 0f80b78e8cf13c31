"""Carries a runner's output into shared storage while it runs."""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from datetime import UTC, datetime

from prunectl.errors import PrunectlError
from prunectl.jobs.ports import Storage

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
MAX_BYTES = 64 * 2**20
_CHUNK = 64 * 1024


class LogPump(threading.Thread):
    """Reads ``descriptor`` (and closes it at its end) and appends to ``name``.

    A storage that is full ends the log, not the job.
    """

    def __init__(self, storage: Storage, name: str, descriptor: int) -> None:
        super().__init__(name="log-pump", daemon=True)
        self._storage = storage
        self._name = name
        self._descriptor = descriptor
        self._own_lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._written = 0
        self._broken = False

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._own_lines.put(f"{now} [prunectl] {text}\n".encode())

    def finish(self, *, wait_seconds: float = 5.0) -> None:
        """Wait until all is written; the writers must be gone."""
        self.join(wait_seconds)
        if not self.is_alive():
            self._append(self._pending_lines())

    def run(self) -> None:
        buffer, flushed_at = b"", time.monotonic()
        try:
            while True:
                ready, _, _ = select.select([self._descriptor], [], [], FLUSH_SECONDS)
                if ready:
                    chunk = os.read(self._descriptor, _CHUNK)
                    if not chunk:
                        break
                    buffer += chunk
                if not ready or len(buffer) >= _CHUNK or time.monotonic() - flushed_at >= FLUSH_SECONDS:
                    self._append(self._pending_lines() + buffer)
                    buffer, flushed_at = b"", time.monotonic()
        finally:
            os.close(self._descriptor)
            self._append(buffer + self._pending_lines())

    def _pending_lines(self) -> bytes:
        lines = b""
        while not self._own_lines.empty():
            lines += self._own_lines.get()
        return lines

    def _append(self, data: bytes) -> None:
        if not data or self._broken or self._written >= MAX_BYTES:
            return
        self._written += len(data)
        if self._written >= MAX_BYTES:
            data += f"\n[prunectl] the log ends here: more than {MAX_BYTES} bytes\n".encode()
        try:
            self._storage.append(self._name, data)
        except (PrunectlError, OSError) as error:
            self._broken = True
            logger.warning("%s: the log can't be written any more: %s", self._name, error)
