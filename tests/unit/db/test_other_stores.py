"""Workers, tokens and idempotency keys: in memory and in SQLite alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from prunectl.db.idempotency_store import SqlIdempotencyStore
from prunectl.db.token_store import SqlTokenStore
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.jobs.memory import MemoryIdempotencyStore, MemoryTokenStore, MemoryWorkerStore
from prunectl.jobs.ports import IdempotencyStore, Token, TokenStore, Worker, WorkerStore

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


@pytest.fixture
def keys(make: Callable[..., IdempotencyStore]) -> IdempotencyStore:
    return make(MemoryIdempotencyStore, SqlIdempotencyStore)


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


def test_the_first_answer_to_a_key_is_remembered(keys: IdempotencyStore) -> None:
    assert keys.recall("ada", "k") is None
    keys.remember("ada", "k", "body1", ["j1", "j2"])
    keys.remember("ada", "k", "body2", ["j3"])
    assert keys.recall("ada", "k") == ("body1", ["j1", "j2"])
    assert keys.recall("bob", "k") is None


def test_old_keys_are_dropped(sqlite_engine: Engine) -> None:
    store = SqlIdempotencyStore(sqlite_engine)
    store.remember("ada", "old", "b", ["j"])
    with sqlite_engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET created_at = created_at - 8 * 86400"))
    store.remember("ada", "new", "b", ["j"])
    assert store.recall("ada", "old") is None
    assert store.recall("ada", "new") is not None
