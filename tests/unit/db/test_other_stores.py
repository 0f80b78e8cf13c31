"""Workers, tokens and idempotency keys: in memory and in SQLite alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from prunectl.db.idempotency_store import SqlIdempotencyStore
from prunectl.db.job_store import SqlJobStore
from prunectl.db.sweep_store import SqlSweepStore
from prunectl.db.token_store import SqlTokenStore
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.jobs.memory import MemoryIdempotencyStore, MemoryJobStore, MemoryTokenStore, MemoryWorkerStore
from prunectl.jobs.memory_sweeps import MemorySweepStore
from prunectl.jobs.ports import IdempotencyStore, JobStore, SweepStore, TokenStore, WorkerStore
from prunectl.jobs.records import AlreadyAnswered, JobQuery, NewSweep, RequestKey, Token, Worker
from support.stores import new_job

WORKER = Worker("t1", "host-1-ab", "host", 1, ("cpu", "gpu"), 2, "cpu", "0.1")
TOKEN = Token("id1", "laptop", "ada", ("read", "submit"))


@pytest.fixture(params=["memory", "sql"])
def make(request: pytest.FixtureRequest, sqlite_engine: Engine) -> Callable[[type, type], object]:
    return lambda memory, sql: memory() if request.param == "memory" else sql(sqlite_engine)


@pytest.fixture
def workers(make: Callable[..., WorkerStore]) -> WorkerStore:
    return make(MemoryWorkerStore, SqlWorkerStore)


@pytest.fixture
def tokens(make: Callable[..., TokenStore]) -> TokenStore:
    return make(MemoryTokenStore, SqlTokenStore)


Keyed = tuple[JobStore, SweepStore, IdempotencyStore]


@pytest.fixture(params=["memory", "sql"])
def keyed(request: pytest.FixtureRequest, sqlite_engine: Engine) -> Keyed:
    if request.param == "sql":
        return SqlJobStore(sqlite_engine), SqlSweepStore(sqlite_engine), SqlIdempotencyStore(sqlite_engine)
    jobs = MemoryJobStore()
    return jobs, MemorySweepStore(jobs), MemoryIdempotencyStore(jobs)


def test_a_worker_shows_itself_and_signs_off(workers: WorkerStore) -> None:
    workers.announce(WORKER)
    [first] = workers.workers()
    assert replace(first, started_at=0.0, seen_at=0.0) == WORKER
    assert first.started_at == pytest.approx(first.seen_at, abs=0.5)
    workers.announce(replace(WORKER, slots=3))
    [renewed] = workers.workers(alive_within_seconds=60)
    assert (renewed.slots, renewed.started_at) == (3, first.started_at)
    assert renewed.seen_at >= first.seen_at
    assert workers.workers(alive_within_seconds=-60) == []
    assert (workers.count_alive(60.0), workers.count_alive(-60.0)) == (1, 0)
    workers.announce(replace(WORKER, token="t2"))  # the same name started anew is another worker
    assert {worker.token for worker in workers.workers()} == {"t1", "t2"}
    workers.forget("t1")
    workers.forget("unknown")
    assert [worker.token for worker in workers.workers()] == ["t2"]
    workers.forget_silent(60.0)
    assert [worker.token for worker in workers.workers()] == ["t2"]
    workers.forget_silent(-60.0)
    assert workers.workers() == []


def test_a_token_is_known_by_its_secret_until_revoked(tokens: TokenStore) -> None:
    tokens.add_token(TOKEN, "a" * 64)
    found = tokens.token_by_secret("a" * 64)
    assert found is not None
    assert (found.id, found.owner, found.scopes) == ("id1", "ada", ("read", "submit"))
    assert tokens.token_by_secret("b" * 64) is None
    [listed] = tokens.tokens()
    assert listed.last_used_at is not None
    assert listed.created_at > 0
    assert tokens.revoke_token("id1")
    assert not tokens.revoke_token("id1")
    assert not tokens.revoke_token("unknown")
    assert tokens.token_by_secret("a" * 64) is None
    assert tokens.tokens()[0].revoked_at is not None


def test_a_token_expires(tokens: TokenStore) -> None:
    tokens.add_token(replace(TOKEN, expires_at=1.0), "a" * 64)
    tokens.add_token(replace(TOKEN, id="id2", expires_at=4e9), "b" * 64)
    assert tokens.token_by_secret("a" * 64) is None
    assert tokens.token_by_secret("b" * 64) is not None


def test_the_secret_is_nowhere_in_the_database(sqlite_engine: Engine) -> None:
    SqlTokenStore(sqlite_engine).add_token(TOKEN, "c" * 64)
    with sqlite_engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM tokens")).one()
    assert row.secret_sha256 == "c" * 64


def test_a_key_keeps_what_its_first_request_made(keyed: Keyed) -> None:
    store, sweeps, keys = keyed
    assert keys.recall("ada", "k") is None
    [added] = store.add([new_job(digest="same")], request=RequestKey("ada", "k", "body1"))
    assert keys.recall("ada", "k") == ("body1", [added.job.id])
    for again in ("body1", "body2"):
        with pytest.raises(AlreadyAnswered):
            store.add([new_job()], request=RequestKey("ada", "k", again))
    sweep = NewSweep(id=new_job().id, owner="ada", spec={"base": {}, "grid": {}})
    with pytest.raises(AlreadyAnswered):
        sweeps.add_sweep(sweep, [new_job(sweep_id=sweep.id)], request=RequestKey("ada", "k", "body1"))
    assert list(store.page(JobQuery()).items) == [added.job]
    assert sweeps.sweep(sweep.id) is None
    sweeps.add_sweep(sweep, [new_job(sweep_id=sweep.id)], request=RequestKey("bob", "k", "body3"))
    assert keys.recall("bob", "k") == ("body3", [sweep.id])
    # An identical job that was there is the answer too.
    store.add([new_job(digest="same")], request=RequestKey("ada", "other", "body1"))
    assert keys.recall("ada", "other") == ("body1", [added.job.id])


def test_nothing_is_kept_of_a_request_that_failed(sqlite_engine: Engine) -> None:
    store, job = SqlJobStore(sqlite_engine), new_job()
    store.add([job])
    with pytest.raises(IntegrityError):
        store.add([replace(job, digest="other")], request=RequestKey("ada", "k", "body"))
    assert SqlIdempotencyStore(sqlite_engine).recall("ada", "k") is None


def test_old_keys_are_dropped(sqlite_engine: Engine) -> None:
    store, keys = SqlJobStore(sqlite_engine), SqlIdempotencyStore(sqlite_engine)
    store.add([new_job()], request=RequestKey("ada", "old", "b"))
    with sqlite_engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET created_at = created_at - 8 * 86400"))
    store.add([new_job()], request=RequestKey("ada", "new", "b"))
    assert keys.recall("ada", "old") is None
    assert keys.recall("ada", "new") is not None
