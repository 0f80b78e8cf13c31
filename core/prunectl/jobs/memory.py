"""The ports in memory, for tests and for trying things out: the SQL stores' behaviour, through the pure functions."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from prunectl.jobs import model
from prunectl.jobs.conflicts import already_ended, cannot_retry, still_active
from prunectl.jobs.events import state_data
from prunectl.jobs.model import Failure, Job, JobState, Lease, TransitionRefused
from prunectl.jobs.query import (
    NUMBER_COLUMNS,
    Position,
    Sort,
    check_filters,
    compare,
    decode_cursor,
    encode_cursor,
    glob_to_regex,
    page_size,
    parse_sort,
)
from prunectl.jobs.records import (
    Added,
    AlreadyAnswered,
    Beat,
    Event,
    JobQuery,
    JobRows,
    MetricFilter,
    NewJob,
    RequestKey,
    Token,
    Worker,
)
from prunectl.jobs.references import upload_digests
from prunectl.jobs.steering import WINDOW, Steering, choose, is_starting

_LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)


class MemoryJobStore:
    """`prunectl.jobs.ports.JobStore` in one process. ``clock`` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.lock = threading.RLock()
        self.links: dict[str, set[str]] = {}
        """Ids of jobs that a sweep shares, by the sweep's."""
        self.searches: dict[str, str] = {}
        """The sweep of a search's candidates, by the search's id."""
        self.limits: dict[str, int] = {}
        """How many jobs an owner may have running."""
        self.answered: dict[tuple[str, str], tuple[str, list[str]]] = {}
        """What was made, by owner and Idempotency-Key."""
        self._jobs: dict[str, Job] = {}
        self._events: list[Event] = []
        self._last_event = 0

    def now(self) -> float:
        return self._clock()

    def add(self, jobs: Sequence[NewJob], *, force: bool = False, request: RequestKey | None = None) -> list[Added]:
        with self.answering(request) as made:
            now = self.now()
            added = [self._add(new, force, now) for new in jobs]
            made += [item.job.id for item in added]
            return added

    @contextmanager
    def answering(self, request: RequestKey | None) -> Iterator[list[str]]:
        """Around what a request makes, under the lock: the ids that are put into the list are kept under its key.

        Raises AlreadyAnswered.
        """
        made: list[str] = []
        with self.lock:
            if request is not None and (request.owner, request.key) in self.answered:
                raise AlreadyAnswered
            yield made
            if request is not None:
                self.answered[request.owner, request.key] = (request.body_sha256, made)

    def _add(self, new: NewJob, force: bool, now: float) -> Added:
        same = [
            job
            for job in self._jobs.values()
            if job.owner == new.owner and job.digest == new.digest and job.state in _LIVE
        ]
        if same and not force:
            return Added(max(same, key=lambda job: (job.created_at, job.id)), created=False)
        return Added(self._changed(new.queued(now)), created=True)

    def _changed(self, job: Job) -> Job:
        """Keep a job's new value and record the event of its state."""
        self._jobs[job.id] = job
        self._record(job, "state", state_data(job))
        return job

    def _record(self, job: Job, kind: str, data: dict[str, Any]) -> None:
        self._last_event += 1
        self._events.append(Event(self._last_event, job.id, job.attempt, self.now(), kind, data))

    def get(self, job_id: str) -> Job | None:
        with self.lock:
            return self._jobs.get(job_id)

    def find(self, text: str, *, owner: str | None = None, limit: int = 3) -> list[str]:
        part = text.lower()
        if not part.isascii() or not part.isalnum():
            return []
        with self.lock:
            found = [
                job.id
                for job in self._jobs.values()
                if (job.id.startswith(part) or job.id.endswith(part)) and owner in (None, job.owner)
            ]
        return sorted(found, reverse=True)[:limit]

    def page(self, query: JobQuery) -> JobRows:
        sort, after, size = parse_sort(query.sort), decode_cursor(query), page_size(query)
        check_filters(query)
        with self.lock:
            now = self.now()
            rows = [(_sort_value(job, sort), job) for job in self._jobs.values() if self._chosen(job, query, now)]
        filled = sorted(
            (row for row in rows if row[0] is not None), key=lambda row: (row[0], row[1].id), reverse=sort.descending
        )
        empty = sorted((row for row in rows if row[0] is None), key=lambda row: row[1].id, reverse=sort.descending)
        ordered = filled + empty
        if after is not None:
            ordered = [row for row in ordered if _beyond(row, sort, after)]
        items = [job for _, job in ordered[:size]]
        more = len(ordered) > size
        last = Position(ordered[size - 1][0], items[-1].id) if more else None
        return JobRows(items, encode_cursor(query, last) if last else None)

    def _chosen(self, job: Job, query: JobQuery, now: float) -> bool:
        in_sweep = query.sweep_id is None or self._in_sweep(job, query.sweep_id)
        return in_sweep and _matches(job, query, now)

    def _in_sweep(self, job: Job, sweep_id: str) -> bool:
        return job.sweep_id == sweep_id or job.id in self.links.get(sweep_id, ())

    def all(self) -> list[Job]:
        with self.lock:
            return list(self._jobs.values())

    def of_sweep(self, sweep_id: str) -> list[Job]:
        """The jobs that the sweep created and those that it shares."""
        return [job for job in self._jobs.values() if self._in_sweep(job, sweep_id)]

    def has_identical(self, owner: str, digest: str) -> bool:
        return any(job.owner == owner and job.digest == digest and job.state in _LIVE for job in self._jobs.values())

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
        with self.lock:
            now = self.now()
            running = self.running_by_owner()
            ready = [
                job
                for job in self._jobs.values()
                if job.queue in queues
                and model.claimable(job, now)
                and self.below_limit(job.owner, running.get(job.owner, 0), max_running_per_owner)
            ]
            if not ready:
                return None
            best = min(ready, key=lambda job: (-job.priority, running.get(job.owner, 0), job.created_at, job.id))
            if steering is not None:
                best = self._steered(best, ready, steering, now)
            token, device = uuid.uuid4().hex, device or best.queue
            return self._changed(
                model.claim(best, worker=worker, device=device, token=token, now=now, lease_seconds=lease_seconds)
            )

    def _steered(self, oldest: Job, ready: Sequence[Job], steering: Steering, now: float) -> Job:
        turn = (oldest.queue, oldest.priority, oldest.owner)
        waiting = [job for job in ready if (job.queue, job.priority, job.owner) == turn]
        running = [job for job in self._jobs.values() if job.state is JobState.RUNNING and job.owner == oldest.owner]
        newest = sorted(running, key=_age, reverse=True)[:WINDOW]
        starting = {job.model_identity for job in newest if is_starting(job.stage)}
        return choose(sorted(waiting, key=_age), steering, starting, now)

    def running_by_owner(self) -> Counter[str]:
        return Counter(job.owner for job in self._jobs.values() if job.state is JobState.RUNNING)

    def below_limit(self, owner: str, busy: int, max_running_per_owner: int | None) -> bool:
        limit = self.limits.get(owner, max_running_per_owner)
        return limit is None or busy < limit

    def heartbeat(self, lease: Lease, *, stage: str | None, progress: float, lease_seconds: float) -> Beat | None:
        with self.lock:
            job = self._jobs.get(lease.job_id)
            if job is None:
                return None
            try:
                renewed = model.heartbeat(
                    job, lease, stage=stage, progress=progress, now=self.now(), lease_seconds=lease_seconds
                )
            except TransitionRefused:
                return None
            self._jobs[job.id] = renewed
            if stage is not None and stage != job.stage:
                self._record(renewed, "stage", {"stage": stage})
            return Beat(cancel_requested=renewed.cancel_requested_at is not None)

    def succeed(self, lease: Lease, result: dict[str, Any]) -> float | None:
        job = self.move(lease.job_id, lambda job: model.succeed(job, lease, result, now=self.now()))
        return None if job is None else job.finished_at

    def fail(self, lease: Lease, failure: Failure) -> Job | None:
        return self.move(lease.job_id, lambda job: model.fail(job, lease, failure, now=self.now()))

    def acknowledge_cancel(self, lease: Lease) -> bool:
        return self.move(lease.job_id, lambda job: model.acknowledge_cancel(job, lease, now=self.now())) is not None

    def hand_back(self, lease: Lease) -> bool:
        return self.move(lease.job_id, lambda job: model.hand_back(job, lease, now=self.now())) is not None

    def move(self, job_id: str, transition: Callable[[Job], Job]) -> Job | None:
        """Carry out a transition; None where there is no such job or the guard does not hold."""
        with self.lock:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            try:
                moved = transition(job)
            except TransitionRefused:
                return None
            return job if moved is job else self._changed(moved)

    def cancel(self, job_id: str) -> Job | None:
        with self.lock:
            moved = self.move(job_id, lambda job: model.cancel(job, now=self.now()))
            if moved is None and job_id in self._jobs:
                raise already_ended(self._jobs[job_id])
            self.cancel_candidates(job_id)
            return moved

    def retry(self, job_id: str) -> Job | None:
        with self.lock:
            moved = self.move(job_id, lambda job: model.retry(job, now=self.now()))
            if moved is None and job_id in self._jobs:
                raise cannot_retry(self._jobs[job_id])
            for job in sorted(self.of_sweep(self.searches.get(job_id, "")), key=lambda job: job.id, reverse=True):
                if job.state.terminal and not self.has_identical(job.owner, job.digest):
                    self.move(job.id, lambda job: model.retry(job, now=self.now()))
            return moved

    def cancel_candidates(self, search_id: str) -> None:
        """Cancel what a search has queued itself and has not ended."""
        sweep_id = self.searches.get(search_id)
        for job in list(self._jobs.values()):
            if sweep_id is not None and job.sweep_id == sweep_id and not job.state.terminal:
                self.move(job.id, lambda job: model.cancel(job, now=self.now()))

    def remove(self, job_id: str) -> Job | None:
        with self.lock:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            if not job.state.terminal:
                raise still_active(job)
            self._events = [event for event in self._events if event.job_id != job_id]
            return self._jobs.pop(job_id)

    def sweep(self) -> list[Job]:
        with self.lock:
            now = self.now()
            dead = [job for job in self._jobs.values() if model.expired(job, now)]
            return [self._changed(model.expire(job, now=now)) for job in dead]

    def identical(self, digest: str) -> Job | None:
        with self.lock:
            same = [job for job in self._jobs.values() if job.digest == digest and job.state in _LIVE]
        return max(same, key=lambda job: (job.created_at, job.id), default=None)

    def running(self) -> list[tuple[str, str]]:
        with self.lock:
            running = [job for job in self._jobs.values() if job.state is JobState.RUNNING]
        return [(job.worker or "", job.id) for job in sorted(running, key=lambda job: job.started_at or 0.0)]

    def queue_counts(self, *, at_most: int | None = None) -> dict[str, tuple[int, int]]:
        with self.lock:
            now = self.now()
            counts: dict[str, tuple[int, int]] = {}
            for job in self._jobs.values():
                if not job.state.terminal:
                    ready, busy = counts.get(job.queue, (0, 0))
                    counts[job.queue] = (
                        min(ready + model.claimable(job, now), ready + 1 if at_most is None else at_most),
                        busy + (job.state is JobState.RUNNING),
                    )
            return counts

    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        with self.lock:
            return [event for event in self._events if event.job_id == job_id and event.id > after][:limit]

    def referenced_artifacts(self) -> set[str]:
        with self.lock:
            return {uri for job in self._jobs.values() for uri in (job.result or {}).get("artifacts", {}).values()}

    def referenced_uploads(self) -> set[str]:
        with self.lock:
            return {digest for job in self._jobs.values() for digest in upload_digests(json.dumps(job.spec))}

    def unknown(self, job_ids: Sequence[str]) -> set[str]:
        with self.lock:
            return set(job_ids) - set(self._jobs)


def _age(job: Job) -> tuple[float, str]:
    return job.created_at, job.id


def _metric(job: Job, name: str) -> float | None:
    value: float | None = (job.result or {}).get("metrics", {}).get(name, {}).get("after")
    return value


def _sort_value(job: Job, sort: Sort) -> Any:
    return _metric(job, sort.key) if sort.metric else getattr(job, sort.key)


def _beyond(row: tuple[Any, Job], sort: Sort, after: Position) -> bool:
    value, job = row
    beyond_id = job.id < after.job_id if sort.descending else job.id > after.job_id
    if after.value is None or value is None:
        return value is None and (after.value is not None or beyond_id)
    if value == after.value:
        return beyond_id
    return bool(value < after.value if sort.descending else value > after.value)


def _matches(job: Job, query: JobQuery, now: float) -> bool:
    def holds(condition: MetricFilter) -> bool:
        name = condition.name
        value = getattr(job, name) if name in NUMBER_COLUMNS else _metric(job, name)
        return value is not None and bool(compare(value, condition.op, condition.value))

    return (
        query.owner in (None, job.owner)
        and (not query.states or job.state in query.states)
        and (query.model_glob is None or glob_to_regex(query.model_glob).fullmatch(job.model_name) is not None)
        and all(job.tags.get(key) == value for key, value in query.tags.items())
        and (query.since_seconds is None or job.created_at >= now - query.since_seconds)
        and (
            query.active_or_since_seconds is None
            or not job.state.terminal
            or job.created_at >= now - query.active_or_since_seconds
        )
        and all(holds(condition) for condition in query.where)
    )


class MemoryWorkerStore:
    """`prunectl.jobs.ports.WorkerStore` in one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._workers: dict[str, Worker] = {}

    def announce(self, worker: Worker) -> None:
        now = self._clock()
        known = self._workers.get(worker.token)
        self._workers[worker.token] = replace(worker, started_at=known.started_at if known else now, seen_at=now)

    def workers(self, *, alive_within_seconds: float | None = None) -> list[Worker]:
        since = None if alive_within_seconds is None else self._clock() - alive_within_seconds
        found = [worker for worker in self._workers.values() if since is None or worker.seen_at >= since]
        return sorted(found, key=lambda worker: (worker.started_at, worker.token))

    def forget(self, token: str) -> None:
        self._workers.pop(token, None)

    def count_alive(self, within_seconds: float) -> int:
        return len(self.workers(alive_within_seconds=within_seconds))

    def forget_silent(self, seconds: float) -> None:
        since = self._clock() - seconds
        self._workers = {token: worker for token, worker in self._workers.items() if worker.seen_at >= since}


class MemoryTokenStore:
    """`prunectl.jobs.ports.TokenStore` in one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tokens: dict[str, Token] = {}  # by digest of the secret

    def add_token(self, token: Token, secret_sha256: str) -> None:
        self._tokens[secret_sha256] = replace(token, created_at=self._clock())

    def token_by_secret(self, secret_sha256: str) -> Token | None:
        token = self._tokens.get(secret_sha256)
        now = self._clock()
        if token is None or token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now):
            return None
        self._tokens[secret_sha256] = replace(token, last_used_at=now)
        return self._tokens[secret_sha256]

    def tokens(self) -> list[Token]:
        return sorted(self._tokens.values(), key=lambda token: (token.created_at, token.id))

    def revoke_token(self, token_id: str) -> bool:
        for secret, token in self._tokens.items():
            if token.id == token_id and token.revoked_at is None:
                self._tokens[secret] = replace(token, revoked_at=self._clock())
                return True
        return False


class MemoryIdempotencyStore:
    """`prunectl.jobs.ports.IdempotencyStore` beside a `MemoryJobStore`."""

    def __init__(self, jobs: MemoryJobStore) -> None:
        self._jobs = jobs

    def recall(self, owner: str, key: str) -> tuple[str, list[str]] | None:
        return self._jobs.answered.get((owner, key))


class MemoryDoorbell:
    """`prunectl.jobs.ports.Doorbell` that only remembers how often it was rung."""

    def __init__(self) -> None:
        self.rings: list[str] = []

    def ring(self, queue: str, times: int = 1) -> None:
        self.rings.extend([queue] * times)
