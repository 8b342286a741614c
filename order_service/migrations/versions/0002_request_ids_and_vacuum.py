"""Request ids that outlast the outbox, orders offered again, and short indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = ("orders", "outbox")
_PARAMETERS = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 20_000,
    "autovacuum_vacuum_cost_delay": 0,
}


def upgrade() -> None:
    op.add_column("order_status_history", sa.Column("request_id", sa.Text(), nullable=True))
    op.create_index(
        "ix_orders_offered_again",
        "orders",
        ["next_offer_at"],
        unique=False,
        postgresql_where=sa.text("next_offer_at IS NOT NULL AND offers > 0"),
    )
    settings = ", ".join(f"{name} = {value}" for name, value in _PARAMETERS.items())
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} SET ({settings})")


def downgrade() -> None:
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(_PARAMETERS)})")
    op.drop_index("ix_orders_offered_again", table_name="orders")
    op.drop_column("order_status_history", "request_id")
