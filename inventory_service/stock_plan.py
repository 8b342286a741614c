"""Plans a batch of stock updates against locked rows, without I/O."""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from inventory_service.domain import Reservation, StockUpdate, StockUpdateResult
from proto.stock import (
    ReservationState,
    Shortage,
    StockMovementKind,
    StockUpdateKind,
    StockUpdateOutcome,
)


class PlannedMovement(NamedTuple):
    """A ledger row to write for an order."""

    order_id: uuid.UUID
    kind: StockMovementKind
    product_id: int
    delta: int


@dataclass(slots=True)
class StockPlan:
    """Decides updates one after the other against locked stock, and collects what to write.

    `stock` maps each existing product to its stock, `reservations` each order to what was decided
    for it before, `deducted` each order to what was deducted for it.
    """

    stock: dict[int, int]
    reservations: dict[uuid.UUID, Reservation]
    deducted: Mapping[uuid.UUID, Mapping[int, int]] = field(default_factory=dict)
    new_reservations: dict[uuid.UUID, Reservation] = field(default_factory=dict)
    restored: list[uuid.UUID] = field(default_factory=list)
    movements: list[PlannedMovement] = field(default_factory=list)

    def apply(self, update: StockUpdate) -> StockUpdateResult:
        """Decide one update; the same (order, kind) again has the same result."""
        before = self.reservations.get(update.order_id)
        if update.kind is StockUpdateKind.RESTORE:
            return self._restore(update.order_id, before)
        if before is not None:
            return _decided_before(before)
        return self._deduct(update)

    def deltas(self) -> dict[int, int]:
        """The change of each product's stock."""
        totals: Counter[int] = Counter()
        for movement in self.movements:
            totals[movement.product_id] += movement.delta
        return dict(totals)

    def _deduct(self, update: StockUpdate) -> StockUpdateResult:
        unknown = [product_id for product_id in update.items if product_id not in self.stock]
        if unknown:
            return StockUpdateResult(
                StockUpdateOutcome.UNKNOWN_PRODUCT, unknown_product_ids=unknown
            )
        short = [
            Shortage(product_id, quantity, self.stock[product_id])
            for product_id, quantity in update.items.items()
            if self.stock[product_id] < quantity
        ]
        if short:
            self._record(update.order_id, Reservation(ReservationState.REJECTED, short))
            return StockUpdateResult(StockUpdateOutcome.INSUFFICIENT_STOCK, short)
        self._record(update.order_id, Reservation(ReservationState.DEDUCTED))
        for product_id, quantity in update.items.items():
            self._move(update.order_id, StockMovementKind.DEDUCT, product_id, -quantity)
        return StockUpdateResult(StockUpdateOutcome.APPLIED)

    def _restore(self, order_id: uuid.UUID, before: Reservation | None) -> StockUpdateResult:
        if before is None:
            self._record(order_id, Reservation(ReservationState.CANCELLED))
            return StockUpdateResult(StockUpdateOutcome.CANCELLED)
        if before.state is ReservationState.DEDUCTED:
            for product_id, quantity in self._deducted_items(order_id).items():
                self._move(order_id, StockMovementKind.RESTORE, product_id, quantity)
            self._mark_restored(order_id)
            return StockUpdateResult(StockUpdateOutcome.APPLIED)
        if before.state is ReservationState.RESTORED:
            return StockUpdateResult(StockUpdateOutcome.APPLIED)
        return StockUpdateResult(StockUpdateOutcome.CANCELLED)

    def _deducted_items(self, order_id: uuid.UUID) -> Mapping[int, int]:
        if order_id in self.deducted:
            return self.deducted[order_id]
        moved = (each for each in self.movements if each.order_id == order_id)
        return {each.product_id: -each.delta for each in moved}

    def _record(self, order_id: uuid.UUID, reservation: Reservation) -> None:
        self.reservations[order_id] = self.new_reservations[order_id] = reservation

    def _mark_restored(self, order_id: uuid.UUID) -> None:
        reservation = Reservation(ReservationState.RESTORED)
        self.reservations[order_id] = reservation
        if order_id in self.new_reservations:
            self.new_reservations[order_id] = reservation
        else:
            self.restored.append(order_id)

    def _move(
        self, order_id: uuid.UUID, kind: StockMovementKind, product_id: int, delta: int
    ) -> None:
        self.stock[product_id] += delta
        self.movements.append(PlannedMovement(order_id, kind, product_id, delta))


def _decided_before(before: Reservation) -> StockUpdateResult:
    if before.state is ReservationState.DEDUCTED:
        return StockUpdateResult(StockUpdateOutcome.APPLIED)
    if before.state is ReservationState.REJECTED:
        return StockUpdateResult(StockUpdateOutcome.INSUFFICIENT_STOCK, before.shortages)
    return StockUpdateResult(StockUpdateOutcome.CANCELLED)
