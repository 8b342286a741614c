"""Tables of orders and outbox, and the rules of an order's way."""

import datetime as dt
import hashlib
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
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

from service_kit.errors import FailedPrecondition, InvalidArgument, ServiceError

MAX_ITEMS = 100
MAX_QUANTITY = 1_000_000
MAX_KEY = 255
MAX_TOTAL_CENTS = 2**63 - 1

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class Status(StrEnum):
    """`PENDING -> CONFIRMED | REJECTED | CANCELLED`, `CONFIRMED -> CANCELLED`."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


CANCELLABLE = (Status.PENDING, Status.CONFIRMED)


class OrderColumns(TypedColumns):
    """An order. `next_offer_at` is set while inventory's answer to its event is outstanding."""

    id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    user_id: Named[int] = Column(BigInteger)
    status: Named[str] = Column(Text)
    total_cents: Named[int] = Column(BigInteger)
    shortages: Named[Any | None] = Column(JSONB)
    idempotency_key: Named[str | None] = Column(Text)
    fingerprint: Named[bytes | None] = Column(LargeBinary)
    offers: Named[int] = Column(Integer, server_default=text("0"))
    next_offer_at: Named[dt.datetime | None] = Column(DateTime(timezone=True))
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
    """When an order took a status, and by whose request; each at most once."""

    order_id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    status: Named[str] = Column(Text, primary_key=True)
    changed_at: Named[dt.datetime] = Column(DateTime(timezone=True))
    request_id: Named[str | None] = Column(Text)


class OutboxColumns(TypedColumns):
    """An event to publish; `sent_at` is set after its own confirm."""

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


# Every row is updated, and partial indexes are to stay as short as the rows that they are about:
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
    Index(None, "next_offer_at", postgresql_where=text("next_offer_at IS NOT NULL")),
    Index(
        "ix_orders_offered_again",
        "next_offer_at",
        postgresql_where=text("next_offer_at IS NOT NULL AND offers > 0"),
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


# What a request makes by the dozen are NamedTuples: a frozen dataclass takes four times as long.
class Caller(NamedTuple):
    """Whose request it was: kept with the event, because the relay runs outside of any request."""

    request_id: str = ""
    traceparent: str = ""


class WantedItem(NamedTuple):
    """What a client asks for; `unit_price_cents` is the price it believes in, if it said one."""

    product_id: int
    quantity: int
    unit_price_cents: int | None = None


class Draft(NamedTuple):
    """An order as asked for; `idempotency_key` "" means none."""

    user_id: int
    items: Sequence[WantedItem]
    idempotency_key: str = ""
    caller: Caller = Caller()

    def check(self) -> None:
        """InvalidArgument if it breaks a rule that needs no look-up."""
        if not 1 <= len(self.items) <= MAX_ITEMS:
            raise InvalidArgument("INVALID_ITEMS", f"an order has 1 to {MAX_ITEMS} items")
        too_many = any(total > MAX_QUANTITY for total in self.quantities().values())
        if too_many or any(item.quantity < 1 for item in self.items):
            raise InvalidArgument("INVALID_QUANTITY", f"quantity must be 1 to {MAX_QUANTITY}")
        if len(self.idempotency_key) > MAX_KEY or "\0" in self.idempotency_key:
            raise InvalidArgument(
                "INVALID_IDEMPOTENCY_KEY", f"an idempotency key has at most {MAX_KEY} characters"
            )

    def is_valid(self) -> bool:
        """Whether `check` passes."""
        try:
            self.check()
        except InvalidArgument:
            return False
        return True

    def quantities(self) -> dict[int, int]:
        """Quantity by product; repeated products are added up."""
        totals: dict[int, int] = {}
        for item in self.items:
            totals[item.product_id] = totals.get(item.product_id, 0) + item.quantity
        return totals

    def fingerprint(self) -> bytes:
        """Equal for requests that mean the same order."""
        prices = sorted(
            (item.product_id, item.unit_price_cents)
            for item in self.items
            if item.unit_price_cents is not None
        )
        meaning = repr((sorted(self.quantities().items()), prices))
        return hashlib.sha256(meaning.encode()).digest()


class Snapshot(NamedTuple):
    """A product as inventory knows it now."""

    name: str
    price_cents: int
    stock: int


class Item(NamedTuple):
    """An item of a stored order."""

    product_id: int
    name: str
    quantity: int
    unit_price_cents: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """An item that stock did not cover."""

    product_id: int
    requested: int
    available: int


@dataclass(frozen=True, slots=True)
class StatusChange:
    """When an order took a status, and by whose request ("": unknown)."""

    status: Status
    changed_at: dt.datetime
    request_id: str = ""


class Order(NamedTuple):
    """A stored order; `history` is filled only where it was asked for."""

    id: uuid.UUID
    user_id: int
    status: Status
    items: Sequence[Item]
    total_cents: int
    created_at: dt.datetime
    updated_at: dt.datetime
    shortages: Sequence[Shortage] = ()
    history: Sequence[StatusChange] = ()


class Settlement(NamedTuple):
    """What inventory decided for an order; RELEASED (None) closes a cancelled one."""

    order_id: uuid.UUID
    status: Status | None
    shortages: Sequence[Shortage] = ()
    caller: Caller = Caller()


@dataclass(frozen=True, slots=True)
class Movement:
    """A row of inventory's ledger; `delta` is the signed change of stock."""

    kind: str
    product_id: int
    delta: int
    moved_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Reservation:
    """What inventory decided for an order, and what it moved."""

    state: str
    decided_at: dt.datetime
    shortages: Sequence[Shortage] = ()
    movements: Sequence[Movement] = ()

    def held(self) -> dict[int, int]:
        """Quantity by product, of what the order holds now."""
        totals: Counter[int] = Counter()
        for movement in self.movements:
            totals[movement.product_id] -= movement.delta
        return {product_id: quantity for product_id, quantity in totals.items() if quantity}


def priced_items(draft: Draft, snapshots: Mapping[int, Snapshot]) -> list[Item]:
    """The items with the names and prices of now.

    Raises InvalidArgument (UNKNOWN_PRODUCT), FailedPrecondition (PRICE_CHANGED,
    INSUFFICIENT_STOCK).
    """
    for wanted in draft.items:
        _check_price(wanted, snapshots.get(wanted.product_id))
    items = [
        Item(product_id, snapshots[product_id].name, quantity, snapshots[product_id].price_cents)
        for product_id, quantity in draft.quantities().items()
    ]
    for item in items:
        stock = snapshots[item.product_id].stock
        if stock < item.quantity:
            raise FailedPrecondition(
                "INSUFFICIENT_STOCK",
                f"only {stock} of product {item.product_id} in stock",
                product_id=item.product_id,
                requested=item.quantity,
                available=stock,
            )
    if sum(item.quantity * item.unit_price_cents for item in items) > MAX_TOTAL_CENTS:
        raise InvalidArgument("INVALID_ITEMS", "the order's total is too large")
    return items


def _check_price(wanted: WantedItem, snapshot: Snapshot | None) -> None:
    if snapshot is None:
        raise InvalidArgument(
            "UNKNOWN_PRODUCT",
            f"there is no product {wanted.product_id}",
            product_id=wanted.product_id,
        )
    if wanted.unit_price_cents not in (None, snapshot.price_cents):
        raise FailedPrecondition(
            "PRICE_CHANGED",
            f"the price of product {wanted.product_id} is another",
            product_id=wanted.product_id,
            unit_price_cents=snapshot.price_cents,
        )


@dataclass(frozen=True, slots=True)
class StoredKey:
    """The order stored under an idempotency key, and the fingerprint of its request."""

    order: Order
    fingerprint: bytes

    def replay(self, draft: Draft) -> Order:
        """The stored order; FailedPrecondition if the key came with another request."""
        if draft.fingerprint() != self.fingerprint:
            raise FailedPrecondition(
                "IDEMPOTENCY_KEY_REUSED", "this idempotency key was used for another request"
            )
        return self.order


def not_cancellable(status: str) -> ServiceError:
    """The refusal to cancel an order that is in `status`."""
    return FailedPrecondition("NOT_CANCELLABLE", f"the order is {status}", status=status)
