"""What the job service and the workers need from the outside, as small Protocols.

Shipped implementations: `prunectl.db.job_store.SqlJobStore` and `prunectl.jobs.memory.MemoryJobStore`; one contract test
runs against both. Every method is one transaction; none is held open across anything slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from prunectl.jobs.model import Failure, Job, JobState, Lease
from prunectl.jobs.records import (
    Added,
    Beat,
    Candidates,
    Event,
    JobQuery,
    JobRows,
    NewJob,
    NewSweep,
    OwnerLoad,
    RequestKey,
    Standing,
    Sweep,
    Token,
    Worker,
)
from prunectl.jobs.steering import Steering


class JobStore(Protocol):
    """The queue of truth."""

    def now(self) -> float:
        """The store's clock, seconds since the epoch. The only clock that leases are measured with."""
        ...

    def add(self, jobs: Sequence[NewJob], *, force: bool = False, request: RequestKey | None = None) -> list[Added]:
        """Queue all of them in one transaction, or return the identical active or succeeded ones that exist.

        Keeps their ids under ``request`` in the same transaction. Raises AlreadyAnswered.
        """
        ...

    def get(self, job_id: str) -> Job | None: ...

    def find(self, text: str, *, owner: str | None = None, limit: int = 3) -> list[str]:
        """Ids that equal, start or end with ``text``; at most ``limit``."""
        ...

    def page(self, query: JobQuery) -> JobRows:
        """One page, by keyset. Raises InvalidInput for an unknown sort key or a cursor of another query."""
        ...

    def claim(
        self,
        queues: Sequence[str],
        *,
        worker: str,
        device: str | None = None,
        lease_seconds: float,
        max_running_per_owner: int | None = None,
        steering: Steering | None = None,
    ) -> Job | None:
        """The best queued job of all ``queues`` (priority, the owner with fewest running, age), now running under a fresh lease.

        ``device`` is what it runs on; without one, the job's queue, which is named for it. Never one of an owner who has
        as many running as `LimitStore` or, failing that, ``max_running_per_owner`` allows. With ``steering``, in place of
        age decides `prunectl.jobs.steering.choose`, as long as no other claim is at the job that it chooses.
        """
        ...

    def heartbeat(self, lease: Lease, *, stage: str | None, progress: float, lease_seconds: float) -> Beat | None:
        """Renew; None means fenced: the lease is someone else's or gone, so kill the work and write nothing."""
        ...

    def succeed(self, lease: Lease, result: dict[str, Any]) -> float | None:
        """Job, metrics rows and event in one transaction. When the job ended; None (and nothing written) for a stale lease."""
        ...

    def fail(self, lease: Lease, failure: Failure) -> Job | None:
        """The job as it is now (queued again, failed or cancelled); None for a stale lease."""
        ...

    def acknowledge_cancel(self, lease: Lease) -> bool: ...

    def hand_back(self, lease: Lease) -> bool: ...

    def cancel(self, job_id: str) -> Job | None:
        """The job as it is now; None if there is none. Raises Conflict where it has ended.

        What a search has queued is cancelled with it.
        """
        ...

    def retry(self, job_id: str) -> Job | None:
        """Raises Conflict where it is neither failed nor cancelled. A search's candidates that are either go with it."""
        ...

    def remove(self, job_id: str) -> Job | None:
        """Delete an ended job with its metrics and events, and return what it was. Raises Conflict while it is active."""
        ...

    def sweep(self) -> list[Job]:
        """Expire every dead lease, each once even with many sweepers at once; the jobs as they are now."""
        ...

    def identical(self, digest: str) -> Job | None:
        """The queued, running or succeeded job with this digest, if there is one."""
        ...

    def running(self) -> list[tuple[str, str]]:
        """(worker name, job id) of every running job."""
        ...

    def queue_counts(self, *, at_most: int | None = None) -> dict[str, tuple[int, int]]:
        """Queue name -> (claimable now, running).

        ``at_most``: stop counting what is claimable there; the cost then does not grow with the queue's length.
        """
        ...

    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]: ...

    def referenced_artifacts(self) -> set[str]:
        """Every artifact URI that a job's result names, for the collector of orphans."""
        ...

    def referenced_uploads(self) -> set[str]:
        """SHA-256 of every uploaded file that a job's spec names."""
        ...

    def unknown(self, job_ids: Sequence[str]) -> set[str]:
        """Those of ``job_ids`` that no job has."""
        ...


class SweepStore(Protocol):
    """Parents and their jobs. The parents' rows never change: whatever a sweep's state is, its jobs say it."""

    def add_sweep(
        self, sweep: NewSweep, jobs: Sequence[NewJob], *, force: bool = False, request: RequestKey | None = None
    ) -> list[Added]:
        """The sweep, its jobs and its links to identical ones that exist, in one transaction.

        Keeps the sweep's id under ``request`` in the same transaction. Raises AlreadyAnswered.
        """
        ...

    def sweep(self, sweep_id: str) -> Sweep | None: ...

    def find_sweeps(self, text: str, *, owner: str | None = None, limit: int = 3) -> list[str]:
        """Ids that equal, start or end with ``text``; at most ``limit``."""
        ...

    def sweeps(self, *, owner: str | None, limit: int, after: str | None) -> list[Sweep]:
        """The newest first, at most ``limit``, of those with a smaller id than ``after``."""
        ...

    def cancel_sweep(self, sweep_id: str) -> list[Job]:
        """Cancel what is queued or running of the jobs that the sweep created; those that this concerned, as they are
        now. Jobs that it shares were there before it and stay.
        """
        ...

    def retry_sweep(self, sweep_id: str, states: Sequence[JobState]) -> list[Job]:
        """Queue those of its jobs (shared ones, too) again that are in one of ``states``; the jobs as they are now."""
        ...

    def count_identical(self, owner: str, digests: Sequence[str]) -> int:
        """How many of ``digests`` belong to a queued, running or succeeded job of ``owner``."""
        ...


class SearchStore(Protocol):
    """Searches and their candidates: jobs that wait for jobs. To cancel or retry a search does so with its candidates."""

    def candidates(self, search_id: str) -> Candidates | None:
        """All candidates of the job ``search_id``, of every state; None before it has queued any."""
        ...

    def wait_for(self, lease: Lease, sweep: NewSweep, jobs: Sequence[NewJob]) -> list[Added] | None:
        """Queue ``jobs`` as candidates in the search's ``sweep`` (made here at the first time) and the search behind
        them, in one transaction; identical jobs that exist are shared. None, and nothing written, for a stale lease; an
        empty list, and nothing queued, where the search was cancelled meanwhile.
        """
        ...

    def wake(self) -> list[Job]:
        """Make every search claimable whose candidates have all ended; the searches, as they are now."""
        ...


class StandingStore(Protocol):
    """Counts that explain the queue; nothing is decided by them."""

    def standing(self, job_id: str, *, max_running_per_owner: int | None = None) -> Standing | None:
        """None where there is no such job. Owners at their limit don't stand in anybody's way."""
        ...

    def loads(self) -> list[OwnerLoad]:
        """Each owner with a queued or running job, by name."""
        ...


class LimitStore(Protocol):
    """Limits of single owners on their running jobs. Claims honour them."""

    def limits(self) -> dict[str, int]:
        """By owner."""
        ...

    def set_limit(self, owner: str, max_running: int | None) -> None:
        """None: whatever the setting says, from now on. 0 holds the owner's jobs back."""
        ...


class WorkerStore(Protocol):
    def announce(self, worker: Worker) -> None:
        """Insert or renew: ``seen_at`` becomes now."""
        ...

    def workers(self, *, alive_within_seconds: float | None = None) -> list[Worker]: ...

    def count_alive(self, within_seconds: float) -> int:
        """How many have shown themselves lately."""
        ...

    def forget(self, token: str) -> None: ...

    def forget_silent(self, seconds: float) -> None:
        """Forget whoever gave no sign of life for so long."""
        ...


class TokenStore(Protocol):
    def add_token(self, token: Token, secret_sha256: str) -> None: ...

    def token_by_secret(self, secret_sha256: str) -> Token | None:
        """The live token with this digest: None where it is unknown, expired or revoked."""
        ...

    def tokens(self) -> list[Token]: ...

    def revoke_token(self, token_id: str) -> bool: ...


class IdempotencyStore(Protocol):
    """What `JobStore.add` and `SweepStore.add_sweep` have kept under requests' keys."""

    def recall(self, owner: str, key: str) -> tuple[str, list[str]] | None:
        """(body digest, ids) of an earlier request with this key."""
        ...


class Doorbell(Protocol):
    """Tells workers that there is work. It may be lost, doubled or late; nothing depends on it."""

    def ring(self, queue: str, times: int = 1) -> None:
        """Best effort: a broker that is down is logged, never raised."""
        ...


class JobEvents(Protocol):
    """Tells whoever watches the message broker of jobs. Best effort, as with a `Doorbell`."""

    def claimed(self, job: Job) -> None:
        """An attempt has begun."""
        ...

    def ended(self, job: Job) -> None:
        """An attempt has ended; ``job`` is as it was left: ended, or queued again."""
        ...


class NoJobEvents:
    """`JobEvents` of nobody."""

    def claimed(self, job: Job) -> None:
        return

    def ended(self, job: Job) -> None:
        return


class Storage(Protocol):
    """Shared storage. Names are relative, with '/' between parts, and can't leave the root."""

    def uri(self, name: str) -> str: ...

    def publish(self, source: str, name: str) -> str:
        """Make a local directory visible under ``name`` as a whole, and return its URI. ``source`` is moved or copied."""
        ...

    def exists(self, name: str) -> bool: ...

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes: ...

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        ...

    def append(self, name: str, data: bytes) -> None: ...

    def size(self, name: str) -> int | None:
        """Bytes, or None where it does not exist."""
        ...

    def list(self, name: str) -> list[str]:
        """Files below ``name``, relative to it."""
        ...

    def open(self, name: str) -> AbstractContextManager[Any]:
        """A binary file object for reading, streamed."""
        ...

    def local_path(self, name: str) -> AbstractContextManager[Path]:
        """A path on this machine with the file's content, good inside the with block: the file itself, or a copy."""
        ...

    def write_stream(self, name: str, chunks: Iterable[bytes]) -> int:
        """`write` for what does not fit in memory; the bytes written. Nothing is visible until the last chunk is in."""
        ...

    def remove(self, name: str) -> None: ...

    def name_of(self, uri: str) -> str | None:
        """The inverse of `uri`; None for a URI that is not in this storage."""
        ...

    def children(self, name: str) -> Iterator[tuple[str, float]]:
        """(name, modification time) of each direct entry below ``name``."""
        ...
