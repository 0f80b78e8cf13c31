"""The tables. Column names are public: people query them.

Times are seconds since the epoch on the database's own clock (`db_now`), never on a client's.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Ids compare byte by byte on every database, so that a prefix can use the index and a page ends where the next begins.
Id = String(26).with_variant(String(26, collation="C"), "postgresql")
# Queried inside: JSONB on PostgreSQL. Only stored and shown: JSON, which keeps the order of keys.
QueriedJson = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
StoredJson = JSON(none_as_null=True)
Seconds: Double[float] = Double()
# SQLite grows a row id by itself only for INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


class db_now(GenericFunction[float]):
    """Seconds since the epoch on the database's clock, at the moment the statement runs."""

    type = Seconds
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite_now(element: Any, compiler: Any, **kw: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42 and is NULL before: a NULL lease would never expire.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(element: Any, compiler: Any, **kw: Any) -> str:
    # Not now(): that is the transaction's start, which may lie before a long wait for a lock.
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


LIVE = text("state IN ('queued', 'running', 'succeeded')")
"""States in which an identical job counts as existing."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", String(200)),
    Column("sweep_id", Id),
    Column("state", String(16), nullable=False),
    Column("stage", String(32)),
    Column("progress", Double, nullable=False, server_default="0"),
    Column("queue", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_identity", Text, nullable=False),
    Column("model_digest", String(80)),
    Column("recipe", QueriedJson, nullable=False),
    Column("recipe_digest", String(80), nullable=False),
    Column("evaluation", QueriedJson, nullable=False),
    Column("tags", QueriedJson, nullable=False),
    Column("spec", StoredJson, nullable=False),
    Column("digest", String(80), nullable=False),
    # The digest of a job that was neither forced nor retried: lets only one of two simultaneous submits in.
    Column("dedupe_key", String(80)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("max_failures", Integer, nullable=False),
    Column("timeout_seconds", Seconds),
    Column("lease_token", String(32)),
    Column("lease_until", Seconds),
    Column("not_before", Seconds, nullable=False),
    Column("cancel_requested_at", Seconds),
    # The sweep of a queued search's candidates; no job is claimed while it has one.
    Column("waits_for", Id),
    Column("worker", String(200)),
    Column("device", String(64)),
    Column("created_at", Seconds, nullable=False),
    Column("started_at", Seconds),
    Column("finished_at", Seconds),
    Column("failure_class", String(32)),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("error_hint", Text),
    Column("gate_passed", Boolean),
    Column("result", StoredJson),
    CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"),
    # A running job without an end of lease could never be swept.
    CheckConstraint("state <> 'running' OR (lease_until IS NOT NULL AND lease_token IS NOT NULL)", name="lease"),
)
Index("ix_jobs_created_at", jobs.c.created_at.desc(), jobs.c.id.desc())
Index("ix_jobs_owner_state", jobs.c.owner, jobs.c.state, jobs.c.created_at.desc(), jobs.c.id.desc())
Index("ix_jobs_state", jobs.c.state, jobs.c.created_at.desc(), jobs.c.id.desc())
# A user may name a job by the end of its id: the last characters have an index of their own.
ID_TAIL_LENGTH = 4
id_tail = func.substr(jobs.c.id, literal_column(str(27 - ID_TAIL_LENGTH)))
Index("ix_jobs_id_tail", id_tail)
Index("ix_jobs_sweep_id", jobs.c.sweep_id)
Index("ix_jobs_digest", jobs.c.digest)
_queued = text("state = 'queued'")
Index(
    "ix_jobs_claim_owner",
    jobs.c.queue, jobs.c.priority.desc(), jobs.c.owner, jobs.c.created_at, jobs.c.id,
    postgresql_where=_queued, sqlite_where=_queued,
)  # fmt: skip
# Who goes first is mostly the owner of the oldest job; the walk from owner to owner is for when that one is busy.
Index(
    "ix_jobs_claim_age",
    jobs.c.queue, jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id,
    postgresql_where=_queued, sqlite_where=_queued,
)  # fmt: skip
_running = text("state = 'running'")
Index("ix_jobs_lease_until", jobs.c.lease_until, postgresql_where=_running, sqlite_where=_running)
Index("ix_jobs_running_owner", jobs.c.owner, postgresql_where=_running, sqlite_where=_running)
_waiting = text("waits_for IS NOT NULL")
Index("ix_jobs_waits_for", jobs.c.waits_for, postgresql_where=_waiting, sqlite_where=_waiting)
Index("uq_jobs_dedupe", jobs.c.owner, jobs.c.dedupe_key, unique=True, postgresql_where=LIVE, sqlite_where=LIVE)

sweeps = Table(
    "sweeps",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", String(200)),
    Column("spec", StoredJson, nullable=False),
    Column("created_at", Seconds, nullable=False),
    # The job whose candidates these are: a search's sweep grows from step to step.
    Column("search_id", Id),
)
Index("uq_sweeps_search_id", sweeps.c.search_id, unique=True)
Index("ix_sweeps_owner", sweeps.c.owner, sweeps.c.id.desc())

# Jobs that a sweep found instead of queueing them; those that it queued name it in jobs.sweep_id.
sweep_links = Table(
    "sweep_links",
    metadata,
    Column("sweep_id", Id, ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True),
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
)
Index("ix_sweep_links_job_id", sweep_links.c.job_id)

owner_limits = Table(
    "owner_limits",
    metadata,
    Column("owner", String(200), primary_key=True),
    # Of jobs that run at the same time; comes before PRUNECTL_MAX_RUNNING_PER_OWNER.
    Column("max_running", Integer, nullable=False),
    CheckConstraint("max_running >= 0", name="max_running"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("name", String(120), primary_key=True),
    Column("before", Double),
    Column("after", Double),
    Column("stderr", Double),
    Column("n", BigInteger),
)
Index("ix_metrics_name_after", metrics.c.name, metrics.c.after)

events = Table(
    "events",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Seconds, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", StoredJson, nullable=False),
    # Never hand out an id again, even after the newest rows are deleted: readers go on after the last id they saw.
    sqlite_autoincrement=True,
)
Index("ix_events_job_id", events.c.job_id, events.c.id)

workers = Table(
    "workers",
    metadata,
    Column("token", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", StoredJson, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("device", String(200), nullable=False),
    Column("version", String(64), nullable=False),
    Column("started_at", Seconds, nullable=False),
    Column("seen_at", Seconds, nullable=False),
)
Index("ix_workers_seen_at", workers.c.seen_at)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("scopes", StoredJson, nullable=False),
    # SHA-256 of the secret, in hex: the secret itself is shown once and never kept.
    Column("secret_sha256", String(64), nullable=False),
    Column("created_at", Seconds, nullable=False),
    Column("expires_at", Seconds),
    Column("revoked_at", Seconds),
    Column("last_used_at", Seconds),
)
Index("uq_tokens_secret_sha256", tokens.c.secret_sha256, unique=True)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", String(200), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_sha256", String(80), nullable=False),
    Column("job_ids", StoredJson, nullable=False),
    Column("created_at", Seconds, nullable=False),
)
Index("ix_idempotency_keys_created_at", idempotency_keys.c.created_at)
