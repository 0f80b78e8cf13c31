"""The contract on SQLite, and what only SQL can get wrong."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.exc import IntegrityError

from prunectl.db.job_listing import listing
from prunectl.db.job_store import SqlJobStore
from prunectl.db.tables import db_now, jobs, metrics
from prunectl.errors import Unavailable
from prunectl.jobs.model import JobState
from prunectl.jobs.query import Position, parse_sort
from prunectl.jobs.records import JobQuery
from prunectl.jobs.steering import Steering
from support.steering_stores import SteeringContract
from support.stores import JobStoreContract, add, claim, get, running, succeeded


class TestSqliteJobStore(JobStoreContract, SteeringContract):
    @pytest.fixture
    def store(self, sqlite_engine: Engine) -> SqlJobStore:
        return SqlJobStore(sqlite_engine)


@pytest.fixture
def store(sqlite_engine: Engine) -> SqlJobStore:
    return SqlJobStore(sqlite_engine)


def test_the_clock_is_never_null_and_has_fractions(sqlite_engine: Engine) -> None:
    with sqlite_engine.connect() as connection:
        values = {connection.scalar(select(db_now())) for _ in range(3) if not time.sleep(0.002)}
    assert all(isinstance(value, float) for value in values)
    assert len(values) > 1


def test_a_running_job_must_have_an_end_of_lease(store: SqlJobStore, sqlite_engine: Engine) -> None:
    job = running(store)
    assert job.lease_until is not None
    with sqlite_engine.begin() as connection, pytest.raises(IntegrityError, match="ck_jobs_lease"):
        connection.execute(jobs.update().where(jobs.c.id == job.id).values(lease_until=None))


def test_a_lease_without_an_end_is_swept_all_the_same(store: SqlJobStore, sqlite_engine: Engine) -> None:
    job = running(store)
    with sqlite_engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        connection.execute(jobs.update().where(jobs.c.id == job.id).values(lease_until=None))
        connection.commit()
    assert [swept.id for swept in store.sweep()] == [job.id]
    assert get(store, job).state == "queued"


def test_metrics_are_rows(store: SqlJobStore, sqlite_engine: Engine) -> None:
    job = succeeded(store)
    with sqlite_engine.connect() as connection:
        rows = connection.execute(select(metrics).order_by(metrics.c.name)).all()
    assert [tuple(row) for row in rows] == [
        (job.id, 1, "eval_loss", 1.0, 1.5, None, 8),
        (job.id, 1, "parameters", 10.0, 5.0, None, None),
    ]
    store.remove(job.id)
    with sqlite_engine.connect() as connection:
        assert connection.execute(select(metrics)).all() == []


def test_people_can_query_the_columns(store: SqlJobStore, sqlite_engine: Engine) -> None:
    succeeded(store, model_name="bert")
    with sqlite_engine.connect() as connection:
        row = connection.execute(
            text("SELECT state, model_name, json_extract(recipe, '$.heads'), gate_passed, model_digest FROM jobs")
        ).one()
    assert tuple(row) == ("succeeded", "bert", 0.3, 1, "sha256:0")


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("SELECT id FROM jobs WHERE substr(id, 23) = 'abcd' AND id LIKE '%abcd'", "ix_jobs_id_tail"),
        ("SELECT id FROM jobs WHERE id LIKE 'abcd%'", "sqlite_autoindex_jobs_1"),
        ("SELECT id FROM jobs ORDER BY created_at DESC, id DESC LIMIT 50", "ix_jobs_created_at"),
        (
            "SELECT id FROM jobs WHERE owner = 'a' AND state = 'failed' ORDER BY created_at DESC, id DESC LIMIT 50",
            "ix_jobs_owner_state",
        ),
        ("SELECT id FROM jobs WHERE digest = 'd' AND state IN ('queued', 'running', 'succeeded')", "ix_jobs_digest"),
    ],
)
def test_frequent_questions_use_an_index(sqlite_engine: Engine, statement: str, index: str) -> None:
    with sqlite_engine.connect() as connection:
        plan = " ".join(str(row.detail) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {statement}")))
    assert index in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (JobQuery(), "ix_jobs_created_at"),
        (JobQuery(owner="ada"), "ix_jobs_owner_state"),
        (JobQuery(owner="ada", states=(JobState.FAILED, JobState.CANCELLED)), "ix_jobs_owner_state"),
        (JobQuery(states=(JobState.FAILED,)), "ix_jobs_state"),
        (JobQuery(active_or_since_seconds=86400.0), "ix_jobs_state"),
        (JobQuery(active_or_since_seconds=86400.0, owner="ada"), "ix_jobs_owner_state"),
    ],
)
def test_a_page_reads_no_more_rows_than_it_shows(sqlite_engine: Engine, query: JobQuery, index: str) -> None:
    statement = listing(query, parse_sort(query.sort), Position(1.0, "x"), 51)
    compiled = statement.compile(sqlite_engine, compile_kwargs={"literal_binds": True})
    with sqlite_engine.connect() as connection:
        rows = list(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}"))
    reads = [row.detail for row in rows if "jobs" in row.detail]
    assert any(index in detail for detail in reads)
    assert all(index in detail or "(id=?)" in detail for detail in reads)
    # What is sorted is what is shown: neither the whole, where no filter is, nor what a part picks from.
    parts = {row.id for row in rows if row.detail.startswith(("MATERIALIZE", "CO-ROUTINE"))}
    assert bool(parts) == (query != JobQuery())
    assert not [row for row in rows if "TEMP B-TREE" in row.detail and (row.parent in parts or not parts)]


@pytest.mark.parametrize("steering", [None, Steering("m")])
def test_a_claim_reads_its_index_alone(store: SqlJobStore, sqlite_engine: Engine, steering: Steering | None) -> None:
    asked: list[tuple[str, object]] = []

    @event.listens_for(sqlite_engine, "before_cursor_execute")
    def _remember(_connection, _cursor, statement, parameters, _context, _many):  # type: ignore[no-untyped-def]
        asked.append((statement, parameters))

    add(store)
    asked.clear()
    assert store.claim(["gpu", "cpu"], worker="w", lease_seconds=60, steering=steering) is not None
    walk, update, *_ = [pair for pair in asked if "jobs" in pair[0]]
    with sqlite_engine.connect() as connection:
        for statement, parameters in (walk, update):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plan = "\n".join(row.detail for row in rows)
            assert "ix_jobs_claim_owner" in plan
            assert "SCAN jobs\n" not in plan + "\n"


def test_an_unmigrated_database_says_what_to_do(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from prunectl.db.session import make_engine

    store = SqlJobStore(make_engine(f"sqlite:///{tmp_path / 'empty.db'}"))
    with pytest.raises(Unavailable) as caught:
        claim(store)
    assert caught.value.hint == "run: prunectl migrate"


def test_two_stores_see_each_other(sqlite_url: str, store: SqlJobStore) -> None:
    from prunectl.db.session import make_engine

    other = SqlJobStore(make_engine(sqlite_url))
    job = add(store)
    assert other.get(job.id) == job
    assert other.cancel(job.id) is not None
    assert get(store, job).state == "cancelled"
