"""The tables of orders and of the outbox."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Named,
    SmallInteger,
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


class OrderColumns(TypedColumns):
    """An order. `next_republish_at` is set while inventory has not answered its last event."""

    id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    user_id: Named[int] = Column(BigInteger)
    status: Named[str] = Column(Text)
    total_cents: Named[int] = Column(BigInteger)
    shortages: Named[Any | None] = Column(JSONB)
    idempotency_key: Named[str | None] = Column(Text)
    fingerprint: Named[bytes | None] = Column(LargeBinary)
    republish_count: Named[int] = Column(Integer, server_default=text("0"))
    next_republish_at: Named[dt.datetime | None] = Column(DateTime(timezone=True))
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True))
    updated_at: Named[dt.datetime] = Column(DateTime(timezone=True))


class ItemColumns(TypedColumns):
    """An item as it was when the order was placed."""

    order_id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    position: Named[int] = Column(SmallInteger, primary_key=True)
    product_id: Named[int] = Column(BigInteger)
    name: Named[str] = Column(Text)
    quantity: Named[int] = Column(BigInteger)
    unit_price_cents: Named[int] = Column(BigInteger)


class HistoryColumns(TypedColumns):
    """When an order took a status, and by which request; each status at most once."""

    order_id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    status: Named[str] = Column(Text, primary_key=True)
    changed_at: Named[dt.datetime] = Column(DateTime(timezone=True))
    request_id: Named[str | None] = Column(Text)


class OutboxColumns(TypedColumns):
    """An event to publish; `sent_at` is set after the broker confirmed it."""

    id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    order_id: Named[uuid.UUID] = Column(Uuid)
    type: Named[str] = Column(Text)
    body: Named[bytes] = Column(LargeBinary)
    request_id: Named[str] = Column(Text, server_default="")
    traceparent: Named[str] = Column(Text, server_default="")
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())
    sent_at: Named[dt.datetime | None] = Column(DateTime(timezone=True))
    attempts: Named[int] = Column(Integer, server_default=text("0"))
    next_attempt_at: Named[dt.datetime | None] = Column(DateTime(timezone=True))
    last_error: Named[str | None] = Column(Text)


# Every row is updated, and the partial indexes must stay as short as the rows that they cover:
# vacuumed by what changed, not by the table's size, and without pauses.
_OFTEN_VACUUMED = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 20_000,
    "autovacuum_vacuum_cost_delay": 0,
}

orders = Table(
    "orders",
    metadata,
    OrderColumns,
    CheckConstraint(
        "status IN ('PENDING','CONFIRMED','REJECTED','CANCELLED')", name="status_known"
    ),
    Index(None, "user_id", "id"),
    Index(
        "uq_orders_user_id_idempotency_key",
        "user_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    # CONFIRMED is nearly every order: a page of them is found without an index.
    Index(None, "status", "id", postgresql_where=text("status <> 'CONFIRMED'")),
    Index(None, "next_republish_at", postgresql_where=text("next_republish_at IS NOT NULL")),
    Index(
        "ix_orders_republished",
        "next_republish_at",
        postgresql_where=text("next_republish_at IS NOT NULL AND republish_count > 0"),
    ),
    postgresql_with=_OFTEN_VACUUMED,
)
# Children are written in the same statement as their order and never change; a foreign key
# would only look each order up again.
order_items = Table("order_items", metadata, ItemColumns)
order_status_history = Table("order_status_history", metadata, HistoryColumns)
outbox = Table(
    "outbox",
    metadata,
    OutboxColumns,
    Index("ix_outbox_unsent", "id", postgresql_where=text("sent_at IS NULL")),
    Index("ix_outbox_unsent_order_id", "order_id", postgresql_where=text("sent_at IS NULL")),
    Index("ix_outbox_sent_at", "sent_at", postgresql_where=text("sent_at IS NOT NULL")),
    postgresql_with=_OFTEN_VACUUMED,
)
