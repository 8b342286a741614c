"""The tables of the catalogue and the stock."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Named,
    Table,
    Text,
    TypedColumns,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from service_kit.postgres import schema

metadata = schema.metadata()


class ProductColumns(TypedColumns):
    """A product; `stock` is derived from the ledger and kept equal to it."""

    id: Named[int] = Column(BigInteger, Identity(), primary_key=True)
    name: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    price_cents: Named[int] = Column(BigInteger)
    stock: Named[int] = Column(BigInteger)
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())
    updated_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())


class StockMovementColumns(TypedColumns):
    """The ledger: one row per movement, never changed. `delta` is the signed change of stock."""

    id: Named[int] = Column(BigInteger, Identity(), primary_key=True)
    product_id: Named[int] = Column(BigInteger)
    kind: Named[str] = Column(Text)
    delta: Named[int] = Column(BigInteger)
    order_id: Named[uuid.UUID | None] = Column(Uuid)
    reason: Named[str] = Column(Text, server_default="")
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())


class ReservationColumns(TypedColumns):
    """One row per order: what was decided for it, so that no update is applied twice."""

    order_id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    state: Named[str] = Column(Text)
    shortages: Named[Any | None] = Column(JSONB)
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())


class StockBalanceColumns(TypedColumns):
    """The sum of a product's ledger up to and including a movement."""

    product_id: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    movement_id: Named[int] = Column(BigInteger)
    balance: Named[int] = Column(BigInteger)


products = Table(
    "products",
    metadata,
    ProductColumns,
    CheckConstraint("stock >= 0", name="stock_not_negative"),
    CheckConstraint("price_cents >= 0", name="price_not_negative"),
    # Stock changes continuously: room on the page keeps those updates off the index.
    postgresql_with={"fillfactor": 50},
)
# No foreign key: products are never deleted, and their rows are locked whenever a movement is
# written, so a second lookup of each would buy nothing.
stock_movements = Table(
    "stock_movements",
    metadata,
    StockMovementColumns,
    CheckConstraint("kind IN ('INITIAL','ADJUSTMENT','DEDUCT','RESTORE')", name="kind_known"),
    Index(None, "product_id", "id"),
    # No order moves a product twice the same way. Also finds the movements of an order.
    Index(
        "uq_stock_movements_order_id_product_id_kind",
        "order_id",
        "product_id",
        "kind",
        unique=True,
        postgresql_where=text("order_id IS NOT NULL"),
    ),
)
reservations = Table(
    "reservations",
    metadata,
    ReservationColumns,
    CheckConstraint("state IN ('DEDUCTED','REJECTED','RESTORED','CANCELLED')", name="state_known"),
)
# How far the continuous check has summed up each product's ledger. Derived: it may be emptied at
# any time.
stock_balances = Table("stock_balances", metadata, StockBalanceColumns)
