"""Exit codes: the one table, for errors by their kind and for jobs by how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

from prunectl.errors import Kind


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_AUTHORISED = 4
    NOT_FOUND = 5
    GATE_FAILED = 6
    CANCELLED = 7
    PENDING = 8
    INTERRUPTED = 130


OF_KIND: dict[Kind, ExitCode] = {
    Kind.INVALID: ExitCode.USAGE,
    Kind.TOO_LARGE: ExitCode.USAGE,
    Kind.NOT_FOUND: ExitCode.NOT_FOUND,
    Kind.UNAUTHENTICATED: ExitCode.NOT_AUTHORISED,
    Kind.FORBIDDEN: ExitCode.NOT_AUTHORISED,
    Kind.UNAVAILABLE: ExitCode.UNREACHABLE,
    Kind.CONFLICT: ExitCode.FAILED,
    Kind.FAILED: ExitCode.FAILED,
}

# Which outcome counts where several jobs ended differently.
_FIRST = (ExitCode.FAILED, ExitCode.CANCELLED, ExitCode.GATE_FAILED, ExitCode.PENDING)


def outcome(job: Mapping[str, Any]) -> ExitCode:
    """How ``job`` (as JSON) ended, or that it is still pending."""
    if job["state"] == "failed":
        return ExitCode.FAILED
    if job["state"] == "cancelled":
        return ExitCode.CANCELLED
    if job["state"] != "succeeded":
        return ExitCode.PENDING
    gate = job.get("gate")
    return ExitCode.GATE_FAILED if gate and not gate["passed"] else ExitCode.DONE


def outcomes(item: Mapping[str, Any]) -> set[ExitCode]:
    """A job's outcome, or those of a sweep's jobs."""
    counts = item.get("counts")
    if counts is None:
        return {outcome(item)}
    numbers = {
        ExitCode.FAILED: counts["failed"],
        ExitCode.CANCELLED: counts["cancelled"],
        ExitCode.GATE_FAILED: item["gates_failed"],
        ExitCode.PENDING: counts["queued"] + counts["running"],
    }
    return {code for code, number in numbers.items() if number}


def combined(jobs: Iterable[Mapping[str, Any]]) -> ExitCode:
    """The first of failed, cancelled, gate failed, pending that applies to any of ``jobs`` (or sweeps); else done."""
    found = {code for job in jobs for code in outcomes(job)}
    return next((code for code in _FIRST if code in found), ExitCode.DONE)
