"""Searches: jobs that wait for the jobs of a sweep. Only new columns that may be empty: workers of the release before
go on, and never see a job that waits, as its time to start is far away.

Revision: 0004_searches
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_searches"
down_revision = "0003_claim_by_owner"
branch_labels = None
depends_on = None

Id = sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql")
_WAITING = sa.text("waits_for IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("waits_for", Id))
    op.create_index("ix_jobs_waits_for", "jobs", ["waits_for"], postgresql_where=_WAITING, sqlite_where=_WAITING)
    op.add_column("sweeps", sa.Column("search_id", Id))
    op.create_index("uq_sweeps_search_id", "sweeps", ["search_id"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_sweeps_search_id", "sweeps")
    op.drop_column("sweeps", "search_id")
    op.drop_index("ix_jobs_waits_for", "jobs")
    op.drop_column("jobs", "waits_for")
