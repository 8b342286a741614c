"""What inventory decided for orders, as the checks see it, and when an order disagrees with it."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from order_service.domain import OrderStatus
from proto.stock import ReservationState, Shortage, StockMovementKind


@dataclass(frozen=True, slots=True)
class StockMovement:
    """A row of inventory's ledger that an order caused; `delta` is the signed change of stock."""

    kind: StockMovementKind
    product_id: int
    delta: int
    moved_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Reservation:
    """What inventory decided for an order, and what it moved."""

    state: ReservationState
    decided_at: dt.datetime
    shortages: Sequence[Shortage] = ()
    movements: Sequence[StockMovement] = ()

    def deducted(self) -> dict[int, int]:
        """Quantity by product of the stock that is deducted for the order now."""
        totals: Counter[int] = Counter()
        for movement in self.movements:
            totals[movement.product_id] -= movement.delta
        return {product_id: quantity for product_id, quantity in totals.items() if quantity}


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """What an order says about its stock; `is_answered` once inventory handled its last event."""

    status: OrderStatus
    is_answered: bool
    quantities: Mapping[int, int]

    def disagreement(self, reservation: Reservation | None) -> str | None:
        """How inventory disagrees with this order; None if it does not, or has not answered."""
        if self.status is OrderStatus.PENDING or not self.is_answered:
            return None
        if reservation is None:
            return f"{self.status}, but inventory decided nothing for it"
        expected = self.quantities if self.status is OrderStatus.CONFIRMED else {}
        deducted = reservation.deducted()
        if reservation.state in _STATES[self.status] and deducted == expected:
            return None
        return (
            f"{self.status} {_units(expected)}, inventory: {reservation.state} {_units(deducted)}"
        )


_STATES = {
    OrderStatus.CONFIRMED: {ReservationState.DEDUCTED},
    OrderStatus.REJECTED: {ReservationState.REJECTED},
    # REJECTED if it was cancelled while inventory's decision was on its way.
    OrderStatus.CANCELLED: {
        ReservationState.RESTORED,
        ReservationState.CANCELLED,
        ReservationState.REJECTED,
    },
}


def _units(quantities: Mapping[int, int]) -> str:
    units = (f"{quantity} of product {product}" for product, quantity in quantities.items())
    return f"({', '.join(units) or 'nothing'})"
