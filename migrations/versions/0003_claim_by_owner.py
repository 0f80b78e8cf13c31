"""A claim walks from owner to owner, so its index has the owner before the age.

Workers of the release before go on: their claim needs only the index's first columns.

Revision: 0003_claim_by_owner
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_claim_by_owner"
down_revision = "0002_sweeps_and_limits"
branch_labels = None
depends_on = None

_QUEUED = sa.text("state = 'queued'")


def upgrade() -> None:
    _replace("ix_jobs_claim", "ix_jobs_claim_owner", ["queue", sa.text("priority DESC"), "owner", "created_at", "id"])


def downgrade() -> None:
    _replace("ix_jobs_claim_owner", "ix_jobs_claim", ["queue", sa.text("priority DESC"), "created_at", "id"])


def _replace(old: str, new: str, columns: list[object]) -> None:
    op.create_index(new, "jobs", columns, postgresql_where=_QUEUED, sqlite_where=_QUEUED)
    op.drop_index(old, "jobs")
