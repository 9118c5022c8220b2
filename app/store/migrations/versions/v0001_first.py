"""Make the first tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

UID = sa.String(64)
WORD = sa.String(16)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make studies and what they consist of, jobs, and the history of both."""
    _studies()
    _instances()
    _jobs()
    _events(
        "study_events",
        sa.Column("study_uid", UID, nullable=False, index=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    _events(
        "job_events",
        sa.Column("job_id", UID, sa.ForeignKey("jobs.id"), nullable=False, index=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("event", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("seconds", sa.Float, nullable=True),
        sa.Column("detail", sa.Text, nullable=False),
    )


def _studies() -> None:
    op.create_table(
        "studies",
        sa.Column("study_uid", UID, primary_key=True),
        sa.Column("state", WORD, nullable=False, index=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("first_received_at", TIME, nullable=False),
        sa.Column("last_received_at", TIME, nullable=False),
        sa.Column("released_at", TIME, nullable=True),
        sa.Column("trace", sa.JSON, nullable=True),
    )


def _instances() -> None:
    study = sa.ForeignKey("studies.study_uid", deferrable=True, initially="DEFERRED")
    op.create_table(
        "instances",
        sa.Column("sop_uid", UID, primary_key=True),
        sa.Column("sop_class_uid", UID, nullable=False),
        sa.Column("study_uid", UID, study, nullable=False, index=True),
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("transfer_syntax", UID, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("identity", sa.Text, nullable=False, unique=True),
        sa.Column("study_uid", UID, sa.ForeignKey("studies.study_uid"), nullable=False, index=True),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("instances", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("orphanings", sa.Integer, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("owner", sa.Text, nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Index("ix_jobs_state_due_at", "state", "due_at"),
    )


def _events(table: str, *columns: sa.Column[object]) -> None:
    """Make a table to which rows can only be added, whichever program opens the file."""
    op.create_table(table, sa.Column("id", sa.Integer, primary_key=True), *columns)
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}")
    op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}")
    # INSERT OR REPLACE deletes the old row without asking the trigger above
    taken = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)"  # noqa: S608  # our own names
    op.execute(f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} {taken} {refuse}")
