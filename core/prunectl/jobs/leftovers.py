"""What dead attempts leave in shared storage: directories that no job names, half-written ones, states of trainings."""

from __future__ import annotations

import logging
import time

from prunectl.jobs.ports import JobStore, Storage
from prunectl.storage.layout import RUNS, TRAINING
from prunectl.storage.names import STAGING_PREFIX

logger = logging.getLogger(__name__)


class ArtifactCollector:
    """Removes what is older than ``after_seconds`` and belongs to nobody. Safe to run anywhere, at any time."""

    def __init__(self, store: JobStore, storage: Storage, after_seconds: float) -> None:
        self._store = store
        self._storage = storage
        self._after_seconds = after_seconds

    def collect(self) -> list[str]:
        """One round; the names that it removed."""
        # The storage's times against this host's clock: the ages are days, so a skew of minutes is harmless.
        old = time.time() - self._after_seconds
        removed = [
            name for name, modified in self._storage.children("") if name.startswith(STAGING_PREFIX) and modified < old
        ]
        candidates = [
            f"{RUNS}/{job_id}/{attempt}"
            for job_id, _ in self._storage.children(RUNS)
            for attempt, modified in self._storage.children(f"{RUNS}/{job_id}")
            if modified < old
        ]
        if candidates:
            named = {self._storage.name_of(uri) for uri in self._store.referenced_artifacts()}
            kept = {"/".join(name.split("/")[:3]) for name in named if name}
            removed += [name for name in candidates if name not in kept and not self._may_still_be_used(name)]
        removed += [
            f"{TRAINING}/{name}"
            for name, modified in self._storage.children(TRAINING)
            if modified < old and self._is_over(name.removesuffix(".safetensors"))
        ]
        for name in removed:
            logger.info("removing orphan artifact %s", name)
            self._storage.remove(name)
        return removed

    def _is_over(self, job_id: str) -> bool:
        job = self._store.get(job_id)
        return job is None or job.state.terminal

    def _may_still_be_used(self, name: str) -> bool:
        """Whether the job is running, or ended after the list of named artifacts was read."""
        job = self._store.get(name.split("/")[1])
        if job is None:
            return False
        named = {self._storage.name_of(uri) for uri in (job.result or {}).get("artifacts", {}).values()}
        return not job.state.terminal or any(other == name or (other or "").startswith(f"{name}/") for other in named)
