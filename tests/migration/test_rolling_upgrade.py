"""A worker of the first release survives every migration since, and finishes its job on the newest schema.

So a service is upgraded by ``prunectl migrate`` first, and its processes one after the other, while jobs run.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from prunectl.db import migrate
from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from prunectl.errors import Unavailable
from prunectl.jobs.model import JobState
from prunectl.settings import Settings
from prunectl.worker import main
from support.stores import add, get, new_job

NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
}

# What a worker and an API of revision 0001 send, word for word but for the clock. Not to be brought up to date.
SUBMIT = """
    INSERT INTO jobs (id, owner, state, progress, queue, priority, model_name, model_identity, recipe, recipe_digest,
                      evaluation, tags, spec, digest, dedupe_key, attempt, failures, max_failures, not_before, created_at)
    VALUES (:id, 'ada', 'queued', 0.0, 'cpu', 0, 'bert', 'dir:/m', '{}', 'sha256:r', '{}', '{}', '{"model": "m"}',
            :digest, :digest, 0, 0, 2, {now}, {now})
    ON CONFLICT (owner, dedupe_key) WHERE state IN ('queued', 'running', 'succeeded') DO NOTHING
"""
BEST = """
    SELECT jobs.id FROM jobs
    LEFT OUTER JOIN (SELECT owner, count(*) AS n FROM jobs WHERE state = 'running' GROUP BY owner) AS running
      ON running.owner = jobs.owner
    WHERE state = 'queued' AND not_before <= {now} AND queue IN ('cpu')
    ORDER BY priority DESC, coalesce(running.n, 0), created_at, id LIMIT 1
"""
CLAIM = """
    UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_token = :token, lease_until = {now} + 60,
                    worker = 'old', device = 'cpu', stage = NULL, progress = 0.0, started_at = {now},
                    failure_class = NULL, error_code = NULL, error_message = NULL, error_hint = NULL
    WHERE id = :id AND state = 'queued' AND not_before <= {now}
"""
LEASE = "id = :id AND state = 'running' AND attempt = :attempt AND lease_token = :token"
HEARTBEAT = f"UPDATE jobs SET lease_until = {{now}} + 60, stage = 'score', progress = 0.3 WHERE {LEASE}"
SUCCEED = f"""
    UPDATE jobs SET lease_token = NULL, lease_until = NULL, state = 'succeeded', finished_at = {{now}}, progress = 1.0,
                    result = :result, model_digest = 'sha256:0', gate_passed = NULL
    WHERE {LEASE}
"""
HAND_BACK = f"""
    UPDATE jobs SET lease_token = NULL, lease_until = NULL, state = 'queued', not_before = {{now}}, worker = NULL,
                    stage = NULL, progress = 0.0
    WHERE {LEASE}
"""
EXPIRE = """
    UPDATE jobs SET lease_token = NULL, lease_until = NULL, failure_class = 'lost', error_code = 'worker_lost',
                    state = CASE WHEN failures + 1 <= max_failures THEN 'queued' ELSE 'failed' END,
                    failures = failures + 1, not_before = {now}, worker = NULL, stage = NULL, progress = 0.0
    WHERE state = 'running' AND (lease_until IS NULL OR lease_until < {now})
"""
EVENT = """
    INSERT INTO events (job_id, attempt, at, kind, data) VALUES (:id, :attempt, {now}, 'state', '{{"state": "running"}}')
"""
METRIC = """
    INSERT INTO metrics (job_id, attempt, name, "before", "after", stderr, n)
    VALUES (:id, :attempt, 'parameters', 10, 5, NULL, NULL)
"""
ANNOUNCE = """
    INSERT INTO workers (token, name, host, pid, queues, slots, device, version, started_at, seen_at)
    VALUES (:token, 'old', 'h', 1, '["cpu"]', 1, 'cpu', '0.0', {now}, {now})
    ON CONFLICT (token) DO UPDATE SET seen_at = {now}
"""
COUNTS = """
    SELECT queue, count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running')
    FROM jobs WHERE state IN ('queued', 'running') GROUP BY queue
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'prunectl.db'}"
    found: str = request.getfixturevalue("postgres_database")
    return found


class OldWorker:
    """The first release's statements."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._now = NOW[engine.dialect.name]

    def write(self, statement: str, **values: Any) -> int:
        # Not str.format: JSON has braces of its own.
        prepared = statement.replace("{now}", self._now).replace("{{", "{").replace("}}", "}")
        with self._engine.connect().execution_options(prunectl_writes=True) as connection, connection.begin():
            return connection.execute(text(prepared), values).rowcount

    def one(self, statement: str) -> Any:
        with self._engine.connect() as connection, connection.begin():
            return connection.execute(text(statement.replace("{now}", self._now))).first()

    def claim(self, token: str) -> str | None:
        found = self.one(BEST)
        if found is None:
            return None
        assert self.write(CLAIM, id=found.id, token=token) == 1
        return str(found.id)


def test_a_worker_of_the_first_release_works_on_the_newest_schema(url: str) -> None:
    migrate.upgrade(url, "0001")
    engine = make_engine(url)
    old = OldWorker(engine)
    running, waiting = "01" + "a" * 24, "01" + "b" * 24
    for job_id in (running, waiting):
        assert old.write(SUBMIT, id=job_id, digest=f"sha256:{job_id}") == 1
    assert old.claim("t" * 32) == running
    old.write(EVENT, id=running, attempt=1)

    migrate.upgrade(url)
    store = SqlJobStore(engine)

    # What was under way goes on under the same lease.
    lease = {"id": running, "attempt": 1, "token": "t" * 32}
    assert old.write(ANNOUNCE, token="w" * 32) == 1
    assert old.write(HEARTBEAT, **lease) == 1
    assert store.get(running) is not None
    assert old.write(SUCCEED, result=json.dumps({"artifacts": {"checkpoint": "file:///x"}}), **lease) == 1
    old.write(METRIC, id=running, attempt=1)
    done = store.get(running)
    assert done is not None
    assert (done.state, done.result) == (JobState.SUCCEEDED, {"artifacts": {"checkpoint": "file:///x"}})

    # Old and new take each other's jobs, hand them back, and expire each other's leases.
    taken = store.claim(["cpu"], worker="new", device="cpu", lease_seconds=60)
    assert taken is not None
    assert taken.id == waiting
    assert store.hand_back(taken.lease)
    assert old.claim("u" * 32) == waiting
    assert old.write(HAND_BACK, id=waiting, attempt=2, token="u" * 32) == 1
    dead = store.claim(["cpu"], worker="new", device="cpu", lease_seconds=-1)
    assert dead is not None
    assert old.write(EXPIRE) == 1
    assert get(store, dead).state is JobState.QUEUED
    assert store.cancel(waiting) is not None
    newest = add(store)
    assert old.one(COUNTS)[:2] == ("cpu", 1)
    assert old.claim("v" * 32) == newest.id
    assert not old.write(HEARTBEAT, id=newest.id, attempt=1, token="another")
    assert old.write(SUBMIT, id="01" + "c" * 24, digest="sha256:new") == 1
    [identical] = store.add([new_job(digest="sha256:new")])
    assert not identical.created
    engine.dispose()


def schema(url: str) -> dict[str, dict[str, Any]]:
    """Table -> column -> what an old statement depends on."""
    inspector = inspect(make_engine(url, pooled=False))
    return {
        table: {column["name"]: column for column in inspector.get_columns(table)}
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def assert_each_migration_only_adds(url: str) -> None:
    scripts = ScriptDirectory(str(migrate.migrations_directory()))
    revisions = [script.revision for script in reversed(list(scripts.walk_revisions()))]
    assert revisions[0] == "0001"
    migrate.upgrade(url, revisions[0])
    before = schema(url)
    for revision in revisions[1:]:
        migrate.upgrade(url, revision)
        after = schema(url)
        for table, columns in before.items():
            assert table in after, f"{revision} drops {table}"
            for name, column in columns.items():
                assert name in after[table], f"{revision} drops {table}.{name}"
                now = after[table][name]
                assert str(now["type"]) == str(column["type"]), f"{revision} changes the type of {table}.{name}"
                assert now["nullable"] or not column["nullable"], f"{revision} forbids NULL in {table}.{name}"
            for name in set(after[table]) - set(columns):
                added = after[table][name]
                fills_itself = added["nullable"] or added["default"] is not None
                assert fills_itself, f"{revision} adds {table}.{name}, which an old worker doesn't fill"
        before = after


def test_each_migration_only_adds(url: str) -> None:
    assert_each_migration_only_adds(url)


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        ("op.drop_table('idempotency_keys')", "drops idempotency_keys"),
        ("op.drop_column('jobs', 'device')", "drops jobs.device"),
        ("op.add_column('jobs', sa.Column('extra', sa.Integer, nullable=False, server_default='0'))", None),
        ("op.add_column('tokens', sa.Column('note', sa.Text))", None),
        ("op.alter_column('workers', 'pid', type_=sa.BigInteger)", "changes the type of workers.pid"),
    ],
)
def test_a_migration_that_does_more_is_caught(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, complaint: str | None
) -> None:
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate.migrations_directory(), scripts)
    (scripts / "versions" / "9999_next.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = '9999', {migrate.head()!r}\n"
        f"def upgrade():\n    {step}\n"
    )
    monkeypatch.setattr(migrate, "migrations_directory", lambda: scripts)
    if complaint is None:
        assert_each_migration_only_adds(postgres_database)
    else:
        with pytest.raises(AssertionError, match=complaint):
            assert_each_migration_only_adds(postgres_database)


def test_an_old_worker_may_start_again_on_a_newer_schema_but_not_on_an_older_one(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unavailable, match="prunectl migrate|revision none"):
        main._check_revision(Settings(database_url=url).database)
    migrate.upgrade(url)
    main._check_revision(url)
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    with caplog.at_level(logging.WARNING):
        main._check_revision(url)
    assert "9999_later" in caplog.text
    monkeypatch.setattr(migrate, "head", lambda: "9999_ours")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(Unavailable) as caught:
        main._check_revision(url)
    assert caught.value.hint == "run: prunectl migrate"
    engine.dispose()
