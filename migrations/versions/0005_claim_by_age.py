"""A claim first looks at the oldest jobs, so they have an index.

One more index: workers of the release before go on as they did.

Revision: 0005_claim_by_age
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_claim_by_age"
down_revision = "0004_searches"
branch_labels = None
depends_on = None

_QUEUED = sa.text("state = 'queued'")


def upgrade() -> None:
    columns = ["queue", sa.text("priority DESC"), "created_at", "id"]
    op.create_index("ix_jobs_claim_age", "jobs", columns, postgresql_where=_QUEUED, sqlite_where=_QUEUED)


def downgrade() -> None:
    op.drop_index("ix_jobs_claim_age", "jobs")
