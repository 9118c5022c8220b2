"""Remember what headers say, what archives list, and which result replaced which.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the rows of series and of remote studies, and what late slices need."""
    op.create_table(
        "series",
        sa.Column("study_uid", sa.String(64), primary_key=True),
        sa.Column("series_uid", sa.String(64), primary_key=True),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
    )
    op.create_table(
        "remote_studies",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("study_uid", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("instances", sa.Integer, nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("trace", sa.JSON, nullable=True),
    )
    for columns in (["source", "state"], ["state", "study_uid"]):
        op.create_index(f"ix_remote_studies_{'_'.join(columns)}", "remote_studies", columns)
    op.add_column("studies", sa.Column("complete_signal", sa.Text, nullable=True))
    op.add_column("studies", sa.Column("expected", sa.Integer, nullable=True))
    _jobs()
    op.create_index("ix_studies_last_received_at", "studies", ["last_received_at"])
    op.drop_index("ix_instances_study_uid", "instances")
    op.create_index("ix_instances_study_uid_series_uid", "instances", ["study_uid", "series_uid"])


def _jobs() -> None:
    """Number the answers of a route, and keep the queue in an order that an index has."""
    op.add_column("jobs", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("superseded_by", sa.String(64), nullable=True))
    op.add_column("jobs", sa.Column("series_uid", sa.String(80), nullable=False, server_default=""))
    op.add_column(
        "jobs",
        sa.Column(
            "turn_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default="1970-01-01 00:00:00.000000",
        ),
    )
    op.add_column("jobs", sa.Column("published_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE jobs SET turn_at = "
        "strftime('%Y-%m-%d %H:%M:%f', created_at, (-10 * priority) || ' minutes') || '000'"
    )
    op.execute("UPDATE jobs SET published_at = updated_at WHERE stage = 'deliver'")
    for columns in (
        ["superseded_by"],
        ["state", "turn_at", "id"],
        ["created_at", "id"],
        ["state", "created_at", "id"],
    ):
        op.create_index(f"ix_jobs_{'_'.join(columns)}", "jobs", columns)
