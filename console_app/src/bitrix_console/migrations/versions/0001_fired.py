"""The history of alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "fired",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("began", sa.Double, primary_key=True),
        sa.Column("ended", sa.Double, index=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("severity", sa.String(32), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("runbook", sa.String(128), nullable=False),
    )
