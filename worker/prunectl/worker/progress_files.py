"""Training states in shared storage, so that the next attempt at a job goes on where the last one was killed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from prunectl.jobs.ports import Storage
from prunectl.storage.layout import training_name

logger = logging.getLogger(__name__)

_CHUNK = 4 * 1024 * 1024


class TrainingKeeper:
    """`prunectl.recovery.training.Keeper` of one job; every attempt at it, on any node, sees the same file.

    Attempts prune the same way, so the state of one fits the next. Two attempts at once (one lost its lease unaware)
    write equal states, and each write is whole.
    """

    def __init__(self, storage: Storage, job_id: str) -> None:
        self._storage = storage
        self._name = training_name(job_id)

    def load(self, directory: Path) -> Path | None:
        if not self._storage.exists(self._name):
            return None
        target = directory / "resumed.safetensors"
        with self._storage.open(self._name) as stored, target.open("wb") as file:
            shutil.copyfileobj(stored, file, _CHUNK)
        return target

    def save(self, file: Path) -> None:
        self._storage.write_stream(self._name, _chunks(file))

    def forget(self) -> None:
        """The job is done: what was kept for a next attempt goes."""
        if self._storage.exists(self._name):
            self._storage.remove(self._name)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
