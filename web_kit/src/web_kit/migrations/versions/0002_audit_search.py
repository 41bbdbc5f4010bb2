"""An index by which texts in the audit log are found: of all groups of three letters."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(
        "CREATE VIRTUAL TABLE audit_text USING fts5"
        "(what, target, who, detail, content='audit', content_rowid='number', tokenize='trigram')"
    )
    op.execute("INSERT INTO audit_text (audit_text) VALUES ('rebuild')")
    # Rows of the log are only ever added.
    op.execute(
        "CREATE TRIGGER audit_text_add AFTER INSERT ON audit "
        "BEGIN INSERT INTO audit_text (rowid, what, target, who, detail) "
        "VALUES (new.number, new.what, new.target, new.who, new.detail); END"
    )
