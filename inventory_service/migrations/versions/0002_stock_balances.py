"""How far the running audit has added up each product's ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A schema of its own: what lies in it is no data of the shop and may be emptied at any time.
    op.execute("CREATE SCHEMA audit")
    op.create_table(
        "stock_balances",
        sa.Column("product_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("movement_id", sa.BigInteger(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("product_id", name=op.f("pk_stock_balances")),
        schema="audit",
    )
    op.execute("""
        INSERT INTO audit.stock_balances (product_id, movement_id, balance)
        SELECT product_id, max(id), sum(delta) FROM stock_movements GROUP BY product_id
    """)


def downgrade() -> None:
    op.drop_table("stock_balances", schema="audit")
    op.execute("DROP SCHEMA audit")
