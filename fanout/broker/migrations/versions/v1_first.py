"""Tenants, leases and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(63), nullable=False, unique=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("machines", sa.Integer, nullable=False),
        sa.Column("ttl", sa.Float(53), nullable=False),
        sa.Column("types", sa.JSON, nullable=False),
        sa.Column("regions", sa.JSON, nullable=False),
        sa.Column("cost_per_day", sa.Float(53)),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("tenant_id", sa.Integer, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("asked", sa.JSON, nullable=False),
        sa.Column("offer", sa.String(63), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("machines", sa.Integer, nullable=False),
        sa.Column("price", sa.Float(53)),
        sa.Column("ttl", sa.Float(53), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("cause", sa.String(20)),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("idle_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("hosts", sa.JSON),
        sa.Column("login_key", sa.Text),
        sa.Column("made", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("retry_at", sa.Float(53), nullable=False),
        sa.UniqueConstraint("tenant_id", "key", name="uq_leases_tenant_key"),
    )
    op.create_index("ix_leases_state", "leases", ["state"])
    op.create_index("ix_leases_tenant_ended", "leases", ["tenant_id", "ended_at"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("tenant", sa.String(63)),
        sa.Column("lease", sa.String(63)),
        sa.Column("address", sa.String(64)),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_tenant", "audit", ["tenant"])
