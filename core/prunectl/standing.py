"""Why a job is where it is: the wire types of ``prunectl why`` and of quotas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from prunectl.schemas import SCHEMA_VERSION, State

ReasonCode = Literal[
    "no_worker",
    "version_skew",
    "quota",
    "backoff",
    "candidates",
    "ahead",
    "slots_busy",
    "next",
    "running",
    "worker_silent",
    "cancelling",
    "succeeded",
    "gate_failed",
    "failed",
    "cancelled",
]


class Reason(BaseModel):
    """One line. ``code`` is stable; ``data`` has the numbers that the message spells out."""

    code: ReasonCode
    message: str
    hint: str | None = None
    data: dict[str, Any] = {}


class Explanation(BaseModel):
    """Why a job is in its state. The first reason is the one that holds it back most."""

    schema_version: int = SCHEMA_VERSION
    id: str
    state: State
    reasons: list[Reason]


class QuotaView(BaseModel):
    """An owner's jobs and how many may run at the same time (None: as many as there are slots).

    ``origin`` is ``owner`` for a limit of their own, ``setting`` for PRUNECTL_MAX_RUNNING_PER_OWNER.
    """

    owner: str
    running: int
    queued: int
    max_running: int | None
    origin: Literal["owner", "setting"] | None


class QuotaPage(BaseModel):
    schema_version: int = SCHEMA_VERSION
    items: list[QuotaView]
    next_cursor: str | None = None
