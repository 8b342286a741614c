"""Types and rules of orders: no I/O, no SQL.

Types that a request creates by the dozen are NamedTuples: frozen dataclasses take four times as
long to create.
"""

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from proto.limits import MAX_ORDER_ITEMS, MAX_QUANTITY
from proto.orders import SettlementOutcome
from proto.stock import Shortage
from service_kit.context import CallContext
from service_kit.errors import FailedPrecondition, InvalidArgument

MAX_KEY_LENGTH = 255
MAX_TOTAL_CENTS = 2**63 - 1

IdempotencyKey = tuple[int, str]
"""A user's id and a key that this user chose."""


class OrderStatus(StrEnum):
    """`PENDING -> CONFIRMED | REJECTED | CANCELLED`, `CONFIRMED -> CANCELLED`."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


class RequestedItem(NamedTuple):
    """What a client asks for; `unit_price_cents` is the price that it expects, if it named one."""

    product_id: int
    quantity: int
    unit_price_cents: int | None = None


class OrderRequest(NamedTuple):
    """An order as requested; `idempotency_key` "" means none."""

    user_id: int
    items: Sequence[RequestedItem]
    idempotency_key: str = ""
    context: CallContext = CallContext()

    def violation(self) -> InvalidArgument | None:
        """The rule that the request breaks, of those that need no lookup."""
        if not 1 <= len(self.items) <= MAX_ORDER_ITEMS:
            return InvalidArgument(
                "INVALID_ITEMS", f"An order must have 1 to {MAX_ORDER_ITEMS} items."
            )
        too_many = any(total > MAX_QUANTITY for total in self.quantities().values())
        if too_many or any(item.quantity < 1 for item in self.items):
            return InvalidArgument(
                "INVALID_QUANTITY", f"The quantity of a product must be 1 to {MAX_QUANTITY:,}."
            )
        if len(self.idempotency_key) > MAX_KEY_LENGTH or "\0" in self.idempotency_key:
            return InvalidArgument(
                "INVALID_IDEMPOTENCY_KEY",
                f"An idempotency key must have at most {MAX_KEY_LENGTH} characters, and no NUL.",
            )
        return None

    def quantities(self) -> dict[int, int]:
        """Quantity by product; repeated products are summed."""
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


class ProductSnapshot(NamedTuple):
    """A product at the time of ordering."""

    name: str
    price_cents: int
    stock: int


class OrderItem(NamedTuple):
    """An item of a stored order, with name and price of when it was placed."""

    product_id: int
    name: str
    quantity: int
    unit_price_cents: int


class StatusChange(NamedTuple):
    """When an order took a status, and by which request ("": unknown)."""

    status: OrderStatus
    changed_at: dt.datetime
    request_id: str = ""


class Order(NamedTuple):
    """A stored order; `history` is empty unless it was asked for."""

    id: uuid.UUID
    user_id: int
    status: OrderStatus
    items: Sequence[OrderItem]
    total_cents: int
    created_at: dt.datetime
    updated_at: dt.datetime
    shortages: Sequence[Shortage] = ()
    history: Sequence[StatusChange] = ()

    def cancelled(self) -> "Order":
        """This order as CANCELLED; FailedPrecondition (NOT_CANCELLABLE) if it was rejected."""
        if self.status is OrderStatus.REJECTED:
            raise FailedPrecondition(
                "NOT_CANCELLABLE", "A REJECTED order cannot be cancelled.", status=self.status
            )
        return self._replace(status=OrderStatus.CANCELLED)


class OutboxEvent(NamedTuple):
    """An event of an order, ready to publish; `body` is the whole CloudEvents envelope."""

    id: uuid.UUID
    order_id: uuid.UUID
    type: str
    body: bytes
    context: CallContext


class NewOrder(NamedTuple):
    """An order to store, the request that it came from, and its event."""

    order: Order
    request: OrderRequest
    event: OutboxEvent


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The order that is stored under an idempotency key, and the fingerprint of its request."""

    order: Order
    fingerprint: bytes

    def replay(self, request: OrderRequest) -> Order | FailedPrecondition:
        """The stored order, or the refusal if the key came with another request."""
        if request.fingerprint() == self.fingerprint:
            return self.order
        return FailedPrecondition(
            "IDEMPOTENCY_KEY_REUSED", "The idempotency key was used with a different request."
        )


def priced_items(request: OrderRequest, products: Mapping[int, ProductSnapshot]) -> list[OrderItem]:
    """The items with the names and prices that the products have now.

    Raises InvalidArgument (UNKNOWN_PRODUCT, INVALID_ITEMS) or FailedPrecondition (PRICE_CHANGED,
    INSUFFICIENT_STOCK).
    """
    for requested in request.items:
        _check_price(requested, products.get(requested.product_id))
    items = [
        OrderItem(product_id, products[product_id].name, quantity, products[product_id].price_cents)
        for product_id, quantity in request.quantities().items()
    ]
    for item in items:
        _check_stock(item, products[item.product_id].stock)
    if total_cents(items) > MAX_TOTAL_CENTS:
        raise InvalidArgument("INVALID_ITEMS", "The total of the order is too large.")
    return items


def total_cents(items: Iterable[OrderItem]) -> int:
    """What the items cost together."""
    return sum(item.quantity * item.unit_price_cents for item in items)


def _check_price(requested: RequestedItem, product: ProductSnapshot | None) -> None:
    product_id = requested.product_id
    if product is None:
        raise InvalidArgument(
            "UNKNOWN_PRODUCT", f"Product {product_id} does not exist.", product_id=product_id
        )
    if requested.unit_price_cents not in (None, product.price_cents):
        raise FailedPrecondition(
            "PRICE_CHANGED",
            f"The price of product {product_id} has changed.",
            product_id=product_id,
            unit_price_cents=product.price_cents,
        )


def _check_stock(item: OrderItem, stock: int) -> None:
    if stock < item.quantity:
        verb = "is" if stock == 1 else "are"
        raise FailedPrecondition(
            "INSUFFICIENT_STOCK",
            f"Only {stock} of product {item.product_id} {verb} in stock.",
            product_id=item.product_id,
            requested=item.quantity,
            available=stock,
        )


class Settlement(NamedTuple):
    """What inventory decided for an order; `shortages` come with REJECTED."""

    order_id: uuid.UUID
    outcome: SettlementOutcome
    shortages: Sequence[Shortage] = ()
    context: CallContext = CallContext()


class SettlementPlan(NamedTuple):
    """What a batch of settlements changes."""

    settled: Mapping[uuid.UUID, Order]
    """By id, the orders that leave PENDING, in the status that they take."""
    contexts: Mapping[uuid.UUID, CallContext]
    """By id, the call that settles each of them."""
    released: Sequence[uuid.UUID]
    """CANCELLED orders whose stock was restored."""


def plan_settlements(
    settlements: Iterable[Settlement], orders: Mapping[uuid.UUID, Order]
) -> SettlementPlan:
    """Which of these settlements count, given the orders as they are.

    As if they came one after the other: the first one takes its order out of PENDING, and each
    later one for the same order, like one for an order that was settled before, changes nothing.
    Orders that do not exist are passed over.
    """
    settled: dict[uuid.UUID, Order] = {}
    contexts: dict[uuid.UUID, CallContext] = {}
    released: list[uuid.UUID] = []
    for each in settlements:
        order = orders.get(each.order_id)
        if order is None:
            continue
        if each.outcome is SettlementOutcome.RELEASED:
            if order.status is OrderStatus.CANCELLED:
                released.append(order.id)
        elif order.status is OrderStatus.PENDING and order.id not in settled:
            status = OrderStatus(each.outcome)
            settled[order.id] = order._replace(status=status, shortages=each.shortages)
            contexts[order.id] = each.context
    return SettlementPlan(settled, contexts, released)
