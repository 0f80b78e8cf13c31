"""The queue of truth in SQL. Every method is one short transaction that waits for nothing but the database."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Text, and_, bindparam, cast, insert, or_, select
from sqlalchemy.sql import Update

from prunectl.db import candidates, one_trip, transitions
from prunectl.db.bulk import insert_events, insert_new_jobs, insert_queued_events, live_ids
from prunectl.db.claiming import NO_LIMIT, best_priority, claim_one, counts_of_queues, waiting_owners
from prunectl.db.idempotency_store import answering
from prunectl.db.job_listing import SORT_VALUE, listing
from prunectl.db.job_rows import job_of, measures_of, row_of
from prunectl.db.limit_store import take_turns
from prunectl.db.session import reading, streaming, writing
from prunectl.db.tables import ID_TAIL_LENGTH, LIVE, db_now, events, id_tail, jobs, metrics
from prunectl.errors import Conflict
from prunectl.jobs.conflicts import already_ended, cannot_retry, still_active
from prunectl.jobs.events import state_data
from prunectl.jobs.model import Failure, Job, JobState, Lease
from prunectl.jobs.query import Position, decode_cursor, encode_cursor, page_size, parse_sort
from prunectl.jobs.records import Added, Beat, Event, JobQuery, JobRows, NewJob, RequestKey
from prunectl.jobs.references import UPLOAD_PREFIX, upload_digests
from prunectl.jobs.steering import Steering

_CHUNK = 500  # values in one IN (…)
_CANDIDATES = 16  # owners that one claim looks at before it asks for more
_ONE_JOB = select(jobs).where(jobs.c.id == bindparam("the_job"))


class SqlJobStore:
    """`prunectl.jobs.ports.JobStore` on SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._postgresql = engine.dialect.name == "postgresql"

    def now(self) -> float:
        with reading(self._engine) as connection:
            return _now(connection)

    # Queueing

    def add(self, new_jobs: Sequence[NewJob], *, force: bool = False, request: RequestKey | None = None) -> list[Added]:
        if not new_jobs:
            return []
        with writing(self._engine) as connection, answering(connection, request) as made:
            added = self.add_within(connection, new_jobs, force=force)
            made += [item.job.id for item in added]
            return added

    def add_within(self, connection: Connection, new_jobs: Sequence[NewJob], *, force: bool) -> list[Added]:
        """`add` as a part of another transaction."""
        if force:
            created = self._insert(connection, new_jobs, dedupe=False)
            return [Added(created[new.id], created=True) for new in new_jobs]
        return self._add_or_find(connection, new_jobs)

    def _add_or_find(self, connection: Connection, new_jobs: Sequence[NewJob]) -> list[Added]:
        wanted: dict[tuple[str, str], NewJob] = {}
        for new in new_jobs:
            wanted.setdefault((new.owner, new.digest), new)
        known = self._identical(connection, wanted)
        created: dict[str, Job] = {}
        # An identical job that another submit has just queued makes our insert do nothing, and is then found. It could
        # end in failure between the two, and ours go in on the next round.
        for _ in range(10):
            missing = [new for key, new in wanted.items() if key not in known]
            if not missing:
                break
            created |= self._insert(connection, missing, dedupe=True)
            known |= {(job.owner, job.digest): job for job in created.values()}
            known |= self._identical(connection, {key: new for key, new in wanted.items() if key not in known})
        else:
            raise Conflict("identical jobs come and go faster than this one can be queued", hint="submit it again")
        added = []
        for new in new_jobs:
            job = known[(new.owner, new.digest)]
            added.append(Added(job, created=job.id == new.id and new.id in created))
        return added

    def _identical(self, connection: Connection, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Job]:
        ids = live_ids(connection, set(wanted))
        found: dict[tuple[str, str], Job] = {}
        for start in range(0, len(ids), _CHUNK):
            part = select(jobs).where(jobs.c.id.in_(ids[start : start + _CHUNK]))
            for job in map(job_of, connection.execute(part).mappings()):
                other = found.get((job.owner, job.digest))
                if other is None or (other.created_at, other.id) < (job.created_at, job.id):
                    found[(job.owner, job.digest)] = job
        return found

    def _insert(self, connection: Connection, new_jobs: Sequence[NewJob], *, dedupe: bool) -> dict[str, Job]:
        now = _now(connection)
        # In the order of the unique index: two submits of the same jobs in different orders would deadlock.
        ordered = sorted(new_jobs, key=lambda new: (new.owner, new.digest))
        created: dict[str, Job] = {}

        def row(new: NewJob) -> dict[str, Any]:
            # Here, as the rows go out one by one: the database is at work meanwhile.
            created[new.id] = new.queued(now)
            return row_of(new, now=now, dedupe=dedupe)

        inserted = insert_new_jobs(connection, ordered, row)
        insert_queued_events(connection, inserted)
        return {job_id: created[job_id] for job_id in inserted}

    # Looking

    def get(self, job_id: str) -> Job | None:
        with reading(self._engine) as connection:
            return _get(connection, job_id)

    def find(self, text: str, *, owner: str | None = None, limit: int = 3) -> list[str]:
        part = text.lower()
        if not part.isascii() or not part.isalnum():
            return []
        ends: ColumnElement[bool] = jobs.c.id.like(f"%{part}")
        if len(part) >= ID_TAIL_LENGTH:
            ends = and_(id_tail == part[-ID_TAIL_LENGTH:], ends)
        mine = [jobs.c.owner == owner] if owner is not None else []
        with reading(self._engine) as connection:
            return list(
                connection.scalars(
                    select(jobs.c.id)
                    .where(or_(jobs.c.id.like(f"{part}%"), ends), *mine)
                    .order_by(jobs.c.id.desc())
                    .limit(limit)
                )
            )

    def page(self, query: JobQuery) -> JobRows:
        sort, after, size = parse_sort(query.sort), decode_cursor(query), page_size(query)
        with reading(self._engine) as connection:
            rows = connection.execute(listing(query, sort, after, size + 1)).mappings().all()
        more = len(rows) > size
        rows = rows[:size]
        last = Position(rows[-1][SORT_VALUE], rows[-1]["id"]) if more else None
        return JobRows([job_of(row) for row in rows], encode_cursor(query, last) if last else None)

    def identical(self, digest: str) -> Job | None:
        newest = select(jobs).where(jobs.c.digest == digest, LIVE).order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        with reading(self._engine) as connection:
            row = connection.execute(newest.limit(1)).mappings().one_or_none()
        return None if row is None else job_of(row)

    def running(self) -> list[tuple[str, str]]:
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(jobs.c.worker, jobs.c.id)
                .where(transitions.in_state(JobState.RUNNING))
                .order_by(jobs.c.started_at)
            )
            return [(worker or "", job_id) for worker, job_id in rows]

    def queue_counts(self, *, at_most: int | None = None) -> dict[str, tuple[int, int]]:
        with reading(self._engine) as connection:
            rows = connection.execute(counts_of_queues(at_most))
            return {queue: (int(ready), int(busy)) for queue, ready, busy in rows}

    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(events).where(events.c.job_id == job_id, events.c.id > after).order_by(events.c.id).limit(limit)
            ).mappings()
            return [Event(**row) for row in rows]

    def referenced_artifacts(self) -> set[str]:
        named: set[str] = set()
        with streaming(self._engine) as connection:
            rows = connection.execution_options(yield_per=1000).scalars(
                select(jobs.c.result["artifacts"]).where(jobs.c.result.is_not(None))
            )
            for artifacts in rows:
                named.update((artifacts or {}).values())
        return named

    def referenced_uploads(self) -> set[str]:
        text = cast(jobs.c.spec, Text)
        with streaming(self._engine) as connection:
            specs = connection.execution_options(yield_per=1000).scalars(
                select(text).where(text.like(f"%{UPLOAD_PREFIX}%"))
            )
            return {digest for spec in specs for digest in upload_digests(spec)}

    def unknown(self, job_ids: Sequence[str]) -> set[str]:
        missing = set(job_ids)
        with reading(self._engine) as connection:
            for start in range(0, len(job_ids), _CHUNK):
                known = select(jobs.c.id).where(jobs.c.id.in_(job_ids[start : start + _CHUNK]))
                missing.difference_update(connection.scalars(known))
        return missing

    # A worker's writes, each guarded by its lease

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
        by: dict[str, Any] = {"by_worker": worker, "on_device": device, "lease_seconds": lease_seconds}
        steered = steering is not None
        if steering is not None:
            by["warm_model"] = steering.model
        if self._postgresql and max_running_per_owner is None:
            turn = {"below": NO_LIMIT, "max_running": NO_LIMIT, "skip": 0, "take": 1}
            values = {**by, **turn, "new_token": uuid.uuid4().hex}
            with reading(self._engine) as connection:  # one statement: its own transaction
                row = (
                    connection.execute(one_trip.claim_first(tuple(queues), steered=steered), values)
                    .mappings()
                    .one_or_none()
                )
            if row is not None:
                return job_of(row)
        with writing(self._engine) as connection:
            if self._postgresql:
                connection.execute(take_turns(max_running_per_owner))
            below = NO_LIMIT
            while True:
                for turn in self._candidates(connection, queues, below, max_running_per_owner):
                    values = {**turn, **by, "new_token": uuid.uuid4().hex}
                    if (job := _apply(connection, claim_one(steered=steered), values)) is not None:
                        return job
                # Nothing waits, or all of this priority is being claimed by others or beyond its owners' quota.
                below = connection.scalar(best_priority(tuple(queues)), {"below": below})
                if below is None:
                    return None

    def _candidates(
        self, connection: Connection, queues: Sequence[str], below: int, max_running: int | None
    ) -> Iterator[dict[str, Any]]:
        """Whose turn it is, one after the other, as parameters of `claim_one`."""
        statement = waiting_owners(tuple(queues), lateral=self._postgresql)
        bounds = {"below": below, "max_running": NO_LIMIT if max_running is None else max_running}
        for skip in itertools.count(step=_CANDIDATES):
            rows = connection.execute(statement, {**bounds, "skip": skip, "take": _CANDIDATES}).all()
            for priority, queue, owner, oldest in rows:
                yield {"the_queue": queue, "the_priority": priority, "the_owner": owner, "oldest": oldest}
            if len(rows) < _CANDIDATES:
                return

    def heartbeat(self, lease: Lease, *, stage: str | None, progress: float, lease_seconds: float) -> Beat | None:
        with writing(self._engine) as connection:
            before = connection.execute(
                select(jobs.c.stage).where(transitions.holds_lease(lease)).with_for_update()
            ).one_or_none()
            if before is None:
                return None
            update = transitions.heartbeat(lease, stage=stage, progress=progress, lease_seconds=lease_seconds)
            cancel_requested_at = connection.execute(update.returning(jobs.c.cancel_requested_at)).scalar_one()
            if stage is not None and stage != before.stage:
                _record(connection, lease.job_id, lease.attempt, "stage", {"stage": stage})
            return Beat(cancel_requested=cancel_requested_at is not None)

    def succeed(self, lease: Lease, result: dict[str, Any]) -> float | None:
        if self._postgresql:
            with reading(self._engine) as connection:  # one statement: its own transaction
                ended: float | None = connection.execute(*one_trip.succeed(lease, result)).scalar_one_or_none()
                return ended
        with writing(self._engine) as connection:
            job = _apply(connection, transitions.succeed(lease, result))
            rows = [{"job_id": lease.job_id, "attempt": lease.attempt, **row} for row in measures_of(result)]
            if job is not None and rows:
                connection.execute(insert(metrics), rows)
            return None if job is None else job.finished_at

    def fail(self, lease: Lease, failure: Failure) -> Job | None:
        with writing(self._engine) as connection:
            return _apply(connection, transitions.fail(lease, failure))

    def acknowledge_cancel(self, lease: Lease) -> bool:
        with writing(self._engine) as connection:
            return _apply(connection, transitions.acknowledge_cancel(lease)) is not None

    def hand_back(self, lease: Lease) -> bool:
        with writing(self._engine) as connection:
            return _apply(connection, transitions.hand_back(lease)) is not None

    # What users and the sweeper do

    def cancel(self, job_id: str) -> Job | None:
        with writing(self._engine) as connection:
            # Queued first: a claim in between makes it running, which the second statement then sees.
            for update in (
                transitions.cancel_queued(jobs.c.id == job_id),
                transitions.cancel_running(jobs.c.id == job_id),
            ):
                job = _apply(connection, update)
                if job is not None:
                    cancel_candidates(connection, [job])
                    return job
            current = _get(connection, job_id)
            if current is not None and current.state.terminal:
                raise already_ended(current)
            return current

    def retry(self, job_id: str) -> Job | None:
        with writing(self._engine) as connection:
            job = _apply(connection, transitions.retry(jobs.c.id == job_id))
            if job is None and (current := _get(connection, job_id)) is not None:
                raise cannot_retry(current)
            if job is not None:
                own = transitions.retry(transitions.locked(candidates.without_twin(job.id), *candidates.ENDED_BADLY))
                change(connection, own)
            return job

    def remove(self, job_id: str) -> Job | None:
        ended = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
        with writing(self._engine) as connection:
            row = connection.execute(
                jobs.delete().where(jobs.c.id == job_id, jobs.c.state.in_(ended)).returning(jobs)
            ).mappings().one_or_none()  # fmt: skip
            if row is not None:
                return job_of(row)
            if (current := _get(connection, job_id)) is not None:
                raise still_active(current)
            return None

    def sweep(self) -> list[Job]:
        with writing(self._engine) as connection:
            update = transitions.expire()
            if self._postgresql:
                # Rows that another sweeper or a late heartbeat holds are theirs; waiting for them could deadlock.
                dead = select(jobs.c.id).where(transitions.expired()).with_for_update(skip_locked=True)
                update = update.where(jobs.c.id.in_(dead.scalar_subquery()))
            rows = connection.execute(update.returning(jobs)).mappings().all()
            swept = [job_of(row) for row in rows]
            record_states(connection, swept)
            return swept


def _now(connection: Connection) -> float:
    return float(connection.execute(select(db_now())).scalar_one())


def _get(connection: Connection, job_id: str) -> Job | None:
    row = connection.execute(_ONE_JOB, {"the_job": job_id}).mappings().one_or_none()
    return None if row is None else job_of(row)


def _apply(connection: Connection, update: Update, values: dict[str, Any] | None = None) -> Job | None:
    """Carry out a guarded transition of one job and record its event; None where the guard did not hold."""
    row: RowMapping | None = connection.execute(update.returning(jobs), values).mappings().one_or_none()
    if row is None:
        return None
    job = job_of(row)
    record_states(connection, [job])
    return job


def change(connection: Connection, update: Update) -> list[Job]:
    """Carry out a guarded transition of any number of jobs and record its events; the jobs as they are now."""
    changed = [job_of(row) for row in connection.execute(update.returning(jobs)).mappings()]
    record_states(connection, changed)
    return changed


def cancel_candidates(connection: Connection, searches: Iterable[Job]) -> None:
    """Cancel what these jobs have queued as searches."""
    queued_by = candidates.queued_by([job.id for job in searches])
    # Queued first: a claim in between makes one running, which the second statement then sees.
    change(connection, transitions.cancel_queued(transitions.locked(queued_by, JobState.QUEUED)))
    change(connection, transitions.cancel_running(transitions.locked(queued_by, JobState.RUNNING)))


def record_states(connection: Connection, changed: Iterable[Job]) -> None:
    rows = [{"job_id": job.id, "attempt": job.attempt, "kind": "state", "data": state_data(job)} for job in changed]
    if rows:
        insert_events(connection, rows)


def _record(connection: Connection, job_id: str, attempt: int, kind: str, data: dict[str, Any]) -> None:
    connection.execute(insert(events).values(job_id=job_id, attempt=attempt, at=db_now(), kind=kind, data=data))
