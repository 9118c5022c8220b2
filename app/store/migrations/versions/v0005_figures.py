"""Let jobs be counted by state and route without reading them.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_jobs_state_route", "jobs", ["state", "route"])
