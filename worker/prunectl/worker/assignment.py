"""What a runner is told about its job."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from prunectl.storage.layout import run_name


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt at one job. ``spec`` is a `prunectl.schemas.JobCreate` as JSON.

    ``device`` is ``cpu`` or ``gpu`` (then exactly one GPU is visible); ``threads`` is this slot's share of the cores;
    ``scratch`` is an empty directory that is removed after the attempt; ``hub_token_file`` names a 0600 file.
    """

    job_id: str
    attempt: int
    lease_token: str
    spec: dict[str, Any]
    model_identity: str
    model_name: str
    device: str
    storage_url: str
    scratch: str
    threads: int
    zoo_roots: tuple[str, ...] = ()
    embedded: bool = False
    hub_token_file: str | None = None
    candidates: list[dict[str, Any]] = field(default_factory=list)
    """Of a greedy search: the candidates that have ended well, as `prunectl.jobs.searches.known` tells of them."""
    log_level: str = "info"
    log_format: str = "console"

    @property
    def run_name(self) -> str:
        """The directory in shared storage that this attempt, and no other, publishes into."""
        return run_name(self.job_id, self.attempt, self.lease_token)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The line on a runner's standard input: the job, the descriptor to report on, and whose child it is."""

    assignment: Assignment
    report_fd: int
    parent_pid: int

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, line: bytes) -> Envelope:
        """Raises KeyError or TypeError for a line that another version wrote."""
        raw = json.loads(line)
        known = {each.name for each in fields(Assignment)}
        given = {name: value for name, value in raw["assignment"].items() if name in known}
        assignment = Assignment(**{**given, "zoo_roots": tuple(given.get("zoo_roots", ()))})
        return cls(assignment, raw["report_fd"], raw["parent_pid"])
