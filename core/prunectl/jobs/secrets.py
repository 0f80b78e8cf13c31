"""A submitter's Hub token, kept in a 0600 file of the embedded stack until its job has ended; never in the database."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


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
