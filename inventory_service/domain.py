"""The types of the catalogue and the stock, and the rules of their values."""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from proto.limits import MAX_QUANTITY
from proto.stock import (
    ReservationState,
    Shortage,
    StockMovementKind,
    StockUpdateKind,
    StockUpdateOutcome,
)
from service_kit.errors import FailedPrecondition, InvalidArgument

MAX_NAME, MAX_DESCRIPTION, MAX_REASON = 200, 5_000, 500
MAX_AMOUNT = 10**12
"""The largest price in cents, stock or adjustment."""
MAX_PRODUCT_ID = 2**53 - 1
"""The largest explicit id: every JSON reader can hold it."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the catalogue."""

    id: int
    name: str
    description: str
    price_cents: int
    stock: int
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "Product":
        """The product in a row of these fields."""
        return cls(*row)


class ProductSummary(NamedTuple):
    """The fields of a product that an order needs."""

    id: int
    name: str
    price_cents: int
    stock: int


@dataclass(frozen=True, slots=True)
class StockMovement:
    """A row of the ledger; `delta` is the signed change of stock."""

    id: int
    product_id: int
    kind: StockMovementKind
    delta: int
    order_id: uuid.UUID | None
    reason: str
    created_at: dt.datetime

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "StockMovement":
        """The movement in a row of these fields."""
        movement_id, product_id, kind, *rest = row
        return cls(movement_id, product_id, StockMovementKind(kind), *rest)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was decided for an order; REJECTED with the items that were short."""

    state: ReservationState
    shortages: Sequence[Shortage] = ()

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "Reservation":
        """The reservation in a row of these fields."""
        state, shortages = row
        return cls(ReservationState(state), [Shortage(**each) for each in shortages or ()])


@dataclass(frozen=True, slots=True)
class ReservationRecord:
    """A stored reservation, with the movements of its order where they were asked for."""

    order_id: uuid.UUID
    reservation: Reservation
    created_at: dt.datetime
    movements: Sequence[StockMovement] = ()

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "ReservationRecord":
        """The record, without movements, in a row of order_id, created_at, state, shortages."""
        order_id, created_at, *reservation = row
        return cls(order_id, Reservation.from_row(reservation), created_at)


@dataclass(frozen=True, slots=True)
class StockUpdate:
    """What an order asks of stock; `items` maps product id to quantity."""

    order_id: uuid.UUID
    kind: StockUpdateKind
    items: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class StockUpdateResult:
    """The result of one StockUpdate."""

    outcome: StockUpdateOutcome
    shortages: Sequence[Shortage] = ()
    unknown_product_ids: Sequence[int] = ()


def sum_quantities(items: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Quantity by product id; InvalidArgument (INVALID_QUANTITY) for one that no order has."""
    quantities: Counter[int] = Counter()
    for product_id, quantity in items:
        if not 1 <= quantity <= MAX_QUANTITY:
            raise InvalidArgument("INVALID_QUANTITY", f"Quantity must be 1 to {MAX_QUANTITY:,}.")
        quantities[product_id] += quantity
    return dict(quantities)


def adjusted_stock(product_id: int, stock: int, delta: int) -> int:
    """The stock after an adjustment by hand; FailedPrecondition (INSUFFICIENT_STOCK) below 0."""
    if stock + delta < 0:
        verb = "is" if stock == 1 else "are"
        raise FailedPrecondition(
            "INSUFFICIENT_STOCK",
            f"Only {stock} of product {product_id} {verb} in stock.",
            product_id=product_id,
            requested=-delta,
            available=stock,
        )
    return stock + delta


def check_product(fields: Mapping[str, str | int]) -> None:
    """InvalidArgument unless a product can have these fields, each named as in Product."""
    for field, value in fields.items():
        _PRODUCT_RULES[field](value)


def check_changes(fields: Mapping[str, str | int]) -> None:
    """InvalidArgument unless these fields of a product can be changed, and to these values."""
    if not fields or not fields.keys() <= _CHANGEABLE:
        raise InvalidArgument(
            "INVALID_UPDATE_MASK", "The update mask must name name, description or price_cents."
        )
    check_product(fields)


def check_adjustment(delta: int, reason: str) -> None:
    """InvalidArgument unless stock can be adjusted by `delta` for this reason."""
    if delta == 0:
        raise InvalidArgument("INVALID_DELTA", "Delta must not be 0.", field="delta")
    _check_range("delta", delta, -MAX_AMOUNT, MAX_AMOUNT)
    _check_text("reason", reason, 1, MAX_REASON)


def check_query(query: str) -> None:
    """InvalidArgument unless a product's name can contain this."""
    _check_text("query", query, 0, MAX_NAME)


_CHANGEABLE = frozenset({"name", "description", "price_cents"})
_PRODUCT_RULES: Mapping[str, Callable[[Any], None]] = {
    "id": lambda value: _check_range("id", value, 1, MAX_PRODUCT_ID),
    "name": lambda value: _check_text("name", value, 1, MAX_NAME),
    "description": lambda value: _check_text("description", value, 0, MAX_DESCRIPTION),
    "price_cents": lambda value: _check_range("price_cents", value, 0, MAX_AMOUNT, " cents"),
    "stock": lambda value: _check_range("stock", value, 0, MAX_AMOUNT),
}


def _check_text(field: str, text: str, shortest: int, longest: int) -> None:
    if "\0" in text or len(text) > longest or len(text.strip()) < shortest:
        length = f"{shortest} to {longest:,}" if shortest else f"at most {longest:,}"
        raise _invalid(field, f"must have {length} characters")


def _check_range(field: str, number: int, least: int, most: int, unit: str = "") -> None:
    if not least <= number <= most:
        raise _invalid(field, f"must be {least:,} to {most:,}{unit}")


def _invalid(field: str, rule: str) -> InvalidArgument:
    name = field.removesuffix("_cents")
    return InvalidArgument(f"INVALID_{name.upper()}", f"{name.capitalize()} {rule}.", field=field)
