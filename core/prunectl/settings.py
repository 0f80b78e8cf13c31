"""Configuration from the environment (12-factor), each value with where it came from."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """``PRUNECTL_*`` variables. Everything beyond one machine is `broker_url`, `database_url` and `storage_url`.

    The short clocks exist for tests and for tuning; ``docs/architecture.md`` says how they depend on each other.
    """

    model_config = SettingsConfigDict(env_prefix="PRUNECTL_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("prunectl")))
    api_url: str | None = None
    api_token: SecretStr | None = None
    database_url: str | None = None
    broker_url: str | None = None
    storage_url: str | None = None
    model_path: str | None = None

    embedded: bool = False
    """Set by the embedded stack for its own service and worker: submitter and worker are one user on one machine."""
    lease_seconds: float = 60.0
    heartbeat_seconds: float = 10.0
    sweep_seconds: float = 15.0
    cancel_grace_seconds: float = 10.0
    stall_seconds: float = 120.0
    job_timeout_seconds: float = 24 * 3600.0
    max_upload_bytes: Annotated[int, Field(ge=1)] | None = None
    """See `upload_limit`."""
    max_body_bytes: int = 8 * 2**20
    max_running_per_owner: Annotated[int, Field(ge=0)] | None = None
    """Jobs of one owner that run at the same time; the same on the API and the workers."""
    max_sweep_jobs: Annotated[int, Field(ge=1)] = 10_000
    warm_runners: bool = True
    """Fork runners from a process that has imported torch already; off: start each job's process anew."""
    celery_events: bool = False
    """Send each claim and each end of a job as a Celery event, for Flower and its like."""
    orphan_artifact_seconds: float = 24 * 3600.0
    upload_retention_seconds: float = 30 * 24 * 3600.0
    """How long an uploaded file that no job names is kept."""
    shared_retention_seconds: float = 30 * 24 * 3600.0
    """How long scores and baselines that jobs share are kept; a job that needs one later computes it again."""
    log_retention_seconds: float | None = None
    """How long the logs of an ended job are kept; unset: as long as the job."""
    log_level: str = "info"
    log_format: str = "console"

    @field_validator("home")
    @classmethod
    def _one_path(cls, home: Path) -> Path:
        """Absolute and without links: processes of one home run in other working directories, and compare its path."""
        return home.expanduser().resolve()

    @property
    def upload_limit(self) -> int | None:
        """Bytes that an uploaded file may have: 256 MiB, unless set; any number in the embedded stack, whose files are its
        user's own.
        """
        return self.max_upload_bytes or (None if self.embedded else 256 * 2**20)

    @cached_property
    def database(self) -> str:
        """SQLAlchemy URL; SQLite under home where none is set."""
        return self.database_url or f"sqlite:///{self.home / 'prunectl.db'}"

    @cached_property
    def storage(self) -> str:
        return self.storage_url or str(self.home / "storage")

    @cached_property
    def broker(self) -> str:
        """Celery broker URL; ``filesystem://`` under home where none is set."""
        return self.broker_url or "filesystem://"

    @cached_property
    def broker_directory(self) -> Path:
        return self.home / "broker"

    @cached_property
    def zoo_roots(self) -> tuple[Path, ...]:
        return tuple(Path(part).expanduser() for part in (self.model_path or "").split(os.pathsep) if part)

    @cached_property
    def token_file(self) -> Path:
        return self.home / "token"

    def origins(self) -> list[dict[str, Any]]:
        """Each contract variable with its value and where it came from; secrets are masked."""
        shown = {
            "home": str(self.home),
            "api_url": self.api_url,
            "api_token": "********" if self.api_token else None,
            "database_url": _without_password(self.database),
            "broker_url": _without_password(self.broker),
            "storage_url": self.storage,
            "model_path": self.model_path,
        }
        return [
            {
                "variable": f"PRUNECTL_{name.upper()}",
                "value": value,
                "origin": "environment" if os.environ.get(f"PRUNECTL_{name.upper()}") else "default",
            }
            for name, value in shown.items()
        ]


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, sep, credentials = head.partition("://")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{sep}{user}{':***' if colon else ''}@{tail}"
