"""Jobs, what they tell, and what they find."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "job",
        # No number is given twice: the audit log names jobs by it.
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("limit", sa.String(400), nullable=False),
        sa.Column("release", sa.String(64), nullable=False),
        sa.Column("plan_id", sa.Integer, sa.ForeignKey("job.id")),
        sa.Column("approved_by", sa.String(64), nullable=False),
        sa.Column("asked", sa.Double, nullable=False),
        sa.Column("began", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("found", sa.Integer),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("log", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "job_line",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("job.id"), nullable=False, index=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "job_result",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("job.id"), primary_key=True),
        sa.Column("hosts", sa.JSON, nullable=False),
        sa.Column("plan", sa.JSON),
    )
