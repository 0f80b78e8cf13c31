"""The values that pass through the ports: what is queued, asked for, found and said of it. Plain and frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prunectl.jobs.model import Job, JobState


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be queued; id, times and state are the store's to give."""

    id: str
    owner: str
    queue: str
    priority: int
    spec: dict[str, Any]
    digest: str
    recipe_digest: str
    model_name: str
    model_identity: str
    max_failures: int
    timeout_seconds: float | None = None
    name: str | None = None
    sweep_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def queued(self, now: float) -> Job:
        """The job that is queued ``now``."""
        return Job(
            id=self.id,
            owner=self.owner,
            state=JobState.QUEUED,
            queue=self.queue,
            priority=self.priority,
            spec=self.spec,
            digest=self.digest,
            recipe_digest=self.recipe_digest,
            model_name=self.model_name,
            model_identity=self.model_identity,
            created_at=now,
            not_before=now,
            max_failures=self.max_failures,
            timeout_seconds=self.timeout_seconds,
            name=self.name,
            sweep_id=self.sweep_id,
            tags=dict(self.tags),
        )


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An Idempotency-Key, and the digest of what came with it."""

    owner: str
    key: str
    body_sha256: str


class AlreadyAnswered(Exception):
    """A request with the same `RequestKey` was faster: this one has written nothing, and what that one made can be recalled."""


@dataclass(frozen=True, slots=True)
class Added:
    job: Job
    created: bool
    """False: an identical job of this owner is queued, running or succeeded already, and is what ``job`` is."""


@dataclass(frozen=True, slots=True)
class NewSweep:
    """A sweep about to be queued. ``spec`` has the ``base`` and the ``grid`` of a `prunectl.sweep.SweepCreate`."""

    id: str
    owner: str
    spec: dict[str, Any]
    name: str | None = None
    search_id: str | None = None
    """The job whose candidates these are."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep and what its jobs amount to. Its jobs are those that it created and those that it ``shared``: identical
    ones that were there before.
    """

    id: str
    owner: str
    spec: dict[str, Any]
    name: str | None
    created_at: float
    counts: dict[JobState, int] = field(default_factory=dict)
    shared: int = 0
    gates_failed: int = 0
    progress_sum: float = 0.0
    """Of the running jobs' progress."""
    started_at: float | None = None
    finished_at: float | None = None
    """Of the first job to start and the last to end."""
    search_id: str | None = None
    """The job whose candidates these are."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The jobs that a search has queued, or found, so far."""

    sweep_id: str
    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """``name op value`` on a metric's after-value, for example ``eval_accuracy > 0.9``."""

    name: str
    op: str
    value: float


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs, in which order. ``sort`` is a column or a metric's name, with '-' in front for descending."""

    owner: str | None = None
    states: tuple[JobState, ...] = ()
    model_glob: str | None = None
    sweep_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    since_seconds: float | None = None
    """Created within so many seconds before now."""
    active_or_since_seconds: float | None = None
    """Queued, running, or created within so many seconds: what a plain ``list`` shows."""
    where: tuple[MetricFilter, ...] = ()
    sort: str = "-created_at"
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class JobRows:
    items: list[Job]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat that was in time."""

    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process as it announced itself. ``token`` is fresh at each process start; ``seen_at`` is the last sign of life."""

    token: str
    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    slots: int
    device: str
    version: str
    started_at: float = 0.0
    seen_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job; ``id`` grows, so a reader can go on after the last one it saw."""

    id: int
    job_id: str
    attempt: int
    at: float
    kind: str
    """``state`` or ``stage``."""
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as it is kept: never the secret itself, only its SHA-256."""

    id: str
    name: str
    owner: str
    scopes: tuple[str, ...]
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job stands among those of its queue that can be claimed now, in the order in which they will be; steering may
    let jobs of its owner change places (`prunectl.jobs.steering`).
    """

    now: float
    owner_running: int
    owner_limit: int | None
    """How many jobs its owner may have running; None: as many as there are slots."""
    ahead_by_priority: int
    ahead_by_fair_share: int
    """Of owners with fewer running jobs."""
    ahead_by_age: int
    queue_running: int

    @property
    def ahead(self) -> int:
        return self.ahead_by_priority + self.ahead_by_fair_share + self.ahead_by_age


@dataclass(frozen=True, slots=True)
class OwnerLoad:
    owner: str
    running: int
    queued: int
