"""Tables of the catalogue and the stock ledger, and the rules that guard stock."""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    MetaData,
    Named,
    Table,
    Text,
    TypedColumns,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from service_kit.errors import InvalidArgument

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


MAX_QUANTITY = 1_000_000


class Kind(StrEnum):
    """Kinds of ledger rows: `initial + adjustments = stock + deducted - restored`."""

    INITIAL = "INITIAL"
    ADJUSTMENT = "ADJUSTMENT"
    DEDUCT = "DEDUCT"
    RESTORE = "RESTORE"


class Outcome(StrEnum):
    """What became of an order-driven update."""

    APPLIED = "APPLIED"
    INSUFFICIENT_STOCK = "INSUFFICIENT_STOCK"
    CANCELLED = "CANCELLED"
    UNKNOWN_PRODUCT = "UNKNOWN_PRODUCT"


class State(StrEnum):
    """What inventory decided for an order; CANCELLED is the tombstone of one never deducted."""

    DEDUCTED = "DEDUCTED"
    REJECTED = "REJECTED"
    RESTORED = "RESTORED"
    CANCELLED = "CANCELLED"


class ProductColumns(TypedColumns):
    """A product; `stock` is derived from the ledger and kept equal to it."""

    id: Named[int] = Column(BigInteger, Identity(), primary_key=True)
    name: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    price_cents: Named[int] = Column(BigInteger)
    stock: Named[int] = Column(BigInteger)
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())
    updated_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())


class MovementColumns(TypedColumns):
    """The ledger: one row a movement, never changed. `delta` is the signed change of stock."""

    id: Named[int] = Column(BigInteger, Identity(), primary_key=True)
    product_id: Named[int] = Column(BigInteger)
    kind: Named[str] = Column(Text)
    delta: Named[int] = Column(BigInteger)
    order_id: Named[uuid.UUID | None] = Column(Uuid)
    reason: Named[str] = Column(Text, server_default="")
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())


class ReservationColumns(TypedColumns):
    """One row an order: what was decided, so that no update is ever applied twice."""

    order_id: Named[uuid.UUID] = Column(Uuid, primary_key=True)
    state: Named[str] = Column(Text)
    shortages: Named[Any | None] = Column(JSONB)
    created_at: Named[dt.datetime] = Column(DateTime(timezone=True), server_default=func.now())


products = Table(
    "products",
    metadata,
    ProductColumns,
    CheckConstraint("stock >= 0", name="stock_not_negative"),
    CheckConstraint("price_cents >= 0", name="price_not_negative"),
    # Stock changes all the time: room on the page keeps those updates off the index.
    postgresql_with={"fillfactor": 50},
)
# No foreign key: products are never deleted, and their rows are locked whenever a movement is
# written, so a second look-up of each would buy nothing.
stock_movements = Table(
    "stock_movements",
    metadata,
    MovementColumns,
    CheckConstraint("kind IN ('INITIAL','ADJUSTMENT','DEDUCT','RESTORE')", name="kind_known"),
    Index(None, "product_id", "id"),
    Index(None, "order_id", postgresql_where=text("order_id IS NOT NULL")),
)
reservations = Table(
    "reservations",
    metadata,
    ReservationColumns,
    CheckConstraint("state IN ('DEDUCTED','REJECTED','RESTORED','CANCELLED')", name="state_known"),
)


@dataclass(frozen=True, slots=True)
class Shortage:
    """An item that stock did not cover."""

    product_id: int
    requested: int
    available: int


def added_up(items: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Quantity by product id; InvalidArgument for a quantity that no order has."""
    quantities: Counter[int] = Counter()
    for product_id, quantity in items:
        if not 1 <= quantity <= MAX_QUANTITY:
            raise InvalidArgument("INVALID_QUANTITY", f"quantity must be 1 to {MAX_QUANTITY}")
        quantities[product_id] += quantity
    return dict(quantities)


@dataclass(frozen=True, slots=True)
class StockUpdate:
    """What an order asks of stock; `items` maps product id to quantity."""

    order_id: uuid.UUID
    kind: Kind
    items: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The answer to one StockUpdate."""

    outcome: Outcome
    shortages: Sequence[Shortage] = ()
    unknown_product_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was decided for an order."""

    state: State
    shortages: Sequence[Shortage] = ()


@dataclass(slots=True)
class StockPlan:
    """Decides updates one after the other against locked stock, and collects what to write.

    `stock` maps each existing product to its stock, `held` each order to what was deducted for
    it, `reservations` each order to what was decided before.
    """

    stock: dict[int, int]
    reservations: dict[uuid.UUID, Reservation]
    held: Mapping[uuid.UUID, Mapping[int, int]] = field(default_factory=dict)
    opened: dict[uuid.UUID, Reservation] = field(default_factory=dict)
    restored: list[uuid.UUID] = field(default_factory=list)
    movements: list[tuple[uuid.UUID, Kind, int, int]] = field(default_factory=list)

    def apply(self, update: StockUpdate) -> UpdateResult:
        """Decide one update; the same (order, kind) again is answered as the first time."""
        before = self.reservations.get(update.order_id)
        if update.kind is Kind.RESTORE:
            return self._restore(update.order_id, before)
        if before is not None:
            return _as_decided(before)
        return self._deduct(update)

    def deltas(self) -> dict[int, int]:
        """The change of each product's stock."""
        totals: Counter[int] = Counter()
        for _, _, product_id, delta in self.movements:
            totals[product_id] += delta
        return dict(totals)

    def _deduct(self, update: StockUpdate) -> UpdateResult:
        unknown = [product_id for product_id in update.items if product_id not in self.stock]
        if unknown:
            return UpdateResult(Outcome.UNKNOWN_PRODUCT, unknown_product_ids=unknown)
        short = [
            Shortage(product_id, quantity, self.stock[product_id])
            for product_id, quantity in update.items.items()
            if self.stock[product_id] < quantity
        ]
        if short:
            self._open(update.order_id, Reservation(State.REJECTED, short))
            return UpdateResult(Outcome.INSUFFICIENT_STOCK, short)
        self._open(update.order_id, Reservation(State.DEDUCTED))
        for product_id, quantity in update.items.items():
            self._move(update.order_id, Kind.DEDUCT, product_id, -quantity)
        return UpdateResult(Outcome.APPLIED)

    def _restore(self, order_id: uuid.UUID, before: Reservation | None) -> UpdateResult:
        if before is None:
            self._open(order_id, Reservation(State.CANCELLED))
            return UpdateResult(Outcome.CANCELLED)
        if before.state is State.DEDUCTED:
            for product_id, quantity in self._taken(order_id).items():
                self._move(order_id, Kind.RESTORE, product_id, quantity)
            self._close(order_id)
            return UpdateResult(Outcome.APPLIED)
        if before.state is State.RESTORED:
            return UpdateResult(Outcome.APPLIED)
        return UpdateResult(Outcome.CANCELLED)

    def _taken(self, order_id: uuid.UUID) -> Mapping[int, int]:
        if order_id in self.held:
            return self.held[order_id]
        return {item: -delta for order, _, item, delta in self.movements if order == order_id}

    def _open(self, order_id: uuid.UUID, reservation: Reservation) -> None:
        self.reservations[order_id] = self.opened[order_id] = reservation

    def _close(self, order_id: uuid.UUID) -> None:
        reservation = Reservation(State.RESTORED)
        self.reservations[order_id] = reservation
        if order_id in self.opened:
            self.opened[order_id] = reservation
        else:
            self.restored.append(order_id)

    def _move(self, order_id: uuid.UUID, kind: Kind, product_id: int, delta: int) -> None:
        self.stock[product_id] += delta
        self.movements.append((order_id, kind, product_id, delta))


def _as_decided(before: Reservation) -> UpdateResult:
    if before.state is State.DEDUCTED:
        return UpdateResult(Outcome.APPLIED)
    if before.state is State.REJECTED:
        return UpdateResult(Outcome.INSUFFICIENT_STOCK, before.shortages)
    return UpdateResult(Outcome.CANCELLED)
