"""How Alembic runs a migration: on the connection, and in the transaction, that the store gives it."""

from alembic import context

from fanout.broker.schema import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
