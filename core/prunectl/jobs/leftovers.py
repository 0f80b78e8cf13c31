"""What nobody needs any more in shared storage: directories and logs that no job names, half-written files, old uploads,
states of trainings, shared results.

Every process may collect at any time: what is removed belongs to nobody, and removing it twice is harmless.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from prunectl.jobs.lookup import UPLOADS
from prunectl.jobs.ports import JobStore, Storage
from prunectl.settings import Settings
from prunectl.storage.layout import LOGS, RUNS, SHARED, TRAINING, published_name
from prunectl.storage.names import STAGING_PREFIX

logger = logging.getLogger(__name__)


def chores(store: JobStore, storage: Storage, settings: Settings) -> list[Callable[[], object]]:
    """What a sweeper does about once an hour."""
    return [
        ArtifactCollector(store, storage, settings.orphan_artifact_seconds).collect,
        TrainingCollector(store, storage, settings.orphan_artifact_seconds).collect,
        LogCollector(store, storage, settings.orphan_artifact_seconds, settings.log_retention_seconds).collect,
        UploadCollector(store, storage, settings.upload_retention_seconds).collect,
        SharedCollector(storage, settings.shared_retention_seconds, settings.orphan_artifact_seconds).collect,
    ]


class ArtifactCollector:
    """Removes what is older than ``after_seconds`` and belongs to nobody."""

    def __init__(self, store: JobStore, storage: Storage, after_seconds: float) -> None:
        self._store = store
        self._storage = storage
        self._after_seconds = after_seconds

    def collect(self) -> list[str]:
        """One round; the names that it removed."""
        # The storage's times against this host's clock: the ages are days, so a skew of minutes is harmless.
        old = time.time() - self._after_seconds
        removed = _half_written(self._storage, "", old)
        candidates = [
            f"{RUNS}/{job_id}/{attempt}"
            for job_id, _ in self._storage.children(RUNS)
            for attempt, modified in self._storage.children(f"{RUNS}/{job_id}")
            if modified < old
        ]
        if candidates:
            # By name, not by URI: after a move the database still has the old place.
            named = {published_name(uri) for uri in self._store.referenced_artifacts()}
            kept = {"/".join(name.split("/")[:3]) for name in named if name}
            removed += [name for name in candidates if name not in kept and not self._may_still_be_used(name)]
        return _remove(self._storage, "orphan artifact", removed)

    def _may_still_be_used(self, name: str) -> bool:
        """Whether the job is running, or ended after the list of named artifacts was read."""
        job = self._store.get(name.split("/")[1])
        if job is None:
            return False
        named = {published_name(uri) for uri in (job.result or {}).get("artifacts", {}).values()}
        return not job.state.terminal or any(other == name or (other or "").startswith(f"{name}/") for other in named)


class TrainingCollector:
    """Removes states of trainings older than ``after_seconds`` whose job has ended or is no more."""

    def __init__(self, store: JobStore, storage: Storage, after_seconds: float) -> None:
        self._store = store
        self._storage = storage
        self._after_seconds = after_seconds

    def collect(self) -> list[str]:
        """One round; the names that it removed."""
        old = time.time() - self._after_seconds
        removed = _half_written(self._storage, TRAINING, old)
        removed += [
            f"{TRAINING}/{name}"
            for name, modified in self._storage.children(TRAINING)
            if modified < old and not name.startswith(STAGING_PREFIX) and self._is_over(name)
        ]
        return _remove(self._storage, "state of a training", removed)

    def _is_over(self, name: str) -> bool:
        job = self._store.get(name.removesuffix(".safetensors"))
        return job is None or job.state.terminal


class LogCollector:
    """Removes logs of jobs that are no more, and of those that ended more than ``retention_seconds`` ago, if that is set."""

    def __init__(
        self, store: JobStore, storage: Storage, after_seconds: float, retention_seconds: float | None
    ) -> None:
        self._store = store
        self._storage = storage
        self._after_seconds = after_seconds
        self._retention_seconds = retention_seconds

    def collect(self) -> list[str]:
        """One round; the names that it removed."""
        old = time.time() - self._after_seconds
        found = [(job_id, modified) for job_id, modified in self._storage.children(LOGS) if modified < old]
        gone = self._store.unknown([job_id for job_id, _ in found])
        removed = [job_id for job_id, _ in found if job_id in gone or self._ended_long_ago(job_id)]
        return _remove(self._storage, "log", [f"{LOGS}/{job_id}" for job_id in removed])

    def _ended_long_ago(self, job_id: str) -> bool:
        if self._retention_seconds is None or (job := self._store.get(job_id)) is None:
            return False
        return job.finished_at is not None and job.finished_at < self._store.now() - self._retention_seconds


class UploadCollector:
    """Removes uploaded files older than ``after_seconds`` that no job names: a command that needs one sends it again."""

    def __init__(self, store: JobStore, storage: Storage, after_seconds: float) -> None:
        self._store = store
        self._storage = storage
        self._after_seconds = after_seconds

    def collect(self) -> list[str]:
        """One round; the names that it removed."""
        old = time.time() - self._after_seconds
        shelves = [f"{UPLOADS}/{shelf}" for shelf, _ in self._storage.children(UPLOADS)]
        removed = [name for shelf in shelves for name in _half_written(self._storage, shelf, old)]
        candidates = [
            (digest, f"{shelf}/{digest}")
            for shelf in shelves
            for digest, modified in self._storage.children(shelf)
            if modified < old and not digest.startswith(STAGING_PREFIX)
        ]
        if candidates:
            named = self._store.referenced_uploads()
            removed += [name for digest, name in candidates if digest not in named]
        return _remove(self._storage, "upload", removed)


class SharedCollector:
    """Removes shared results older than ``retention_seconds``, and leases and half-written ones after ``after_seconds``.

    Nothing names them: a job that still wants one computes it again.
    """

    def __init__(self, storage: Storage, retention_seconds: float, after_seconds: float) -> None:
        self._storage = storage
        self._retention_seconds = retention_seconds
        self._after_seconds = after_seconds

    def collect(self) -> list[str]:
        """One round; the names that it removed."""
        removed: list[str] = []
        for stage, _ in self._storage.children(SHARED):
            for name, modified in self._storage.children(f"{SHARED}/{stage}"):
                kept = self._retention_seconds if name.endswith(".safetensors") else self._after_seconds
                if modified < time.time() - kept:
                    removed.append(f"{SHARED}/{stage}/{name}")
        return _remove(self._storage, "shared result", removed)


def _half_written(storage: Storage, top: str, old: float) -> list[str]:
    def names() -> Iterator[str]:
        for name, modified in storage.children(top):
            if name.startswith(STAGING_PREFIX) and modified < old:
                yield f"{top}/{name}" if top else name

    return list(names())


def _remove(storage: Storage, what: str, names: list[str]) -> list[str]:
    for name in names:
        logger.info("removing %s %s", what, name)
        storage.remove(name)
    return names
