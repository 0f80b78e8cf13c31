"""A submitter's Hub token, kept in a 0600 file of the embedded stack until its job has ended; never in the database."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class SecretKeeper(Protocol):
    """Keeps a submitter's Hub token where only this user can read it, for as long as the job is active."""

    def keep(self, job_id: str, token: str) -> None: ...

    def drop(self, job_id: str) -> None: ...


@contextmanager
def kept_while_queueing(secrets: SecretKeeper, token: str | None, job_ids: Sequence[str]) -> Iterator[list[str]]:
    """Keep the token, if there is one, for jobs that are about to be queued: a worker may claim them at once.

    In the end it is dropped for those whose ids haven't been put into the list.
    """
    created: list[str] = []
    if not token:
        yield created
        return
    try:
        for job_id in job_ids:
            secrets.keep(job_id, token)
        yield created
    finally:
        for job_id in set(job_ids).difference(created):
            secrets.drop(job_id)


class SecretFiles:
    """One file a job under ``directory`` (0700)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, job_id: str) -> Path:
        if not job_id.isalnum():
            raise ValueError(f"not a job id: {job_id!r}")
        return self._directory / job_id

    def keep(self, job_id: str, token: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path(job_id)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token)

    def read(self, job_id: str) -> str | None:
        try:
            return self.path(job_id).read_text()
        except FileNotFoundError:
            return None

    def share(self, job_id: str, others: Iterable[str]) -> None:
        """Keep the job's token, if it has one, for other jobs of the same submitter, too."""
        token = self.read(job_id)
        for other in others:
            if token is not None:
                self.keep(other, token)

    def drop(self, job_id: str) -> None:
        self.path(job_id).unlink(missing_ok=True)
