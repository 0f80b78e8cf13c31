"""Steering: which of its jobs an owner gives to a slot, once priority and fair share have made it that owner's turn.

A slot that has just run a model takes the next job of the same model: its files are in the machine's memory. Any other
slot leaves a model alone whose shared results another runner is about to compute, as it would only wait for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from prunectl.jobs.model import Job

WINDOW = 64
"""How many of the owner's oldest waiting, and of its newest running, jobs are looked at."""
PATIENCE_SECONDS = 600.0
"""How long the oldest job may have waited and still be overtaken by one that was queued after it."""
STARTING = ("fetch", "baseline", "score")
"""Stages of a running job whose shared results may not be there yet; so is having no stage."""


@dataclass(frozen=True, slots=True)
class Steering:
    """What a slot has warm: the ``model_identity`` of the job that it has just done, or None."""

    model: str | None = None


def choose(waiting: Sequence[Job], steering: Steering, starting: Collection[str], now: float) -> Job:
    """One of ``waiting``: the owner's claimable jobs of one queue and priority, the oldest first.

    ``starting`` are the models of the newest `WINDOW` running jobs of the owner for which `is_starting` holds. Jobs that
    were queued together have no order that anyone asked for, and overtake each other at any time.
    """
    oldest = waiting[0]
    patient = oldest.created_at > now - PATIENCE_SECONDS
    window = [job for job in waiting[:WINDOW] if patient or job.created_at <= oldest.created_at]
    for job in window:
        if job.model_identity == steering.model:
            return job
    return next((job for job in window if job.model_identity not in starting), oldest)


def is_starting(stage: str | None) -> bool:
    """Whether a running job in this stage may still be computing what others of its model wait for."""
    return stage is None or stage in STARTING
