"""Sweeps, the jobs that they share, and limits of single owners. Only new tables: workers of the release before go on.

Revision: 0002_sweeps_and_limits
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_sweeps_and_limits"
down_revision = "0001"
branch_labels = None
depends_on = None

Id = sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", Id, nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_owner", "sweeps", ["owner", sa.text("id DESC")])
    op.create_table(
        "sweep_links",
        sa.Column("sweep_id", Id, nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("sweep_id", "job_id", name="pk_sweep_links"),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_sweep_links_sweep_id_sweeps", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_sweep_links_job_id_jobs", ondelete="CASCADE"),
    )
    op.create_index("ix_sweep_links_job_id", "sweep_links", ["job_id"])
    op.create_table(
        "owner_limits",
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("max_running", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_owner_limits"),
        sa.CheckConstraint("max_running >= 0", name=op.f("ck_owner_limits_max_running")),
    )


def downgrade() -> None:
    for table in ("owner_limits", "sweep_links", "sweeps"):
        op.drop_table(table)
