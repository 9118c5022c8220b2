"""Run by Alembic for each command; the connection and its transaction are the caller's."""

from alembic import context

from app.store.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,  # SQLite changes a column only by copying its table
)
context.run_migrations()
