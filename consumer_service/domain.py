"""Order events, what inventory decided about them, and how their orders are settled."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proto.orders import SettlementOutcome
from proto.stock import Shortage, StockUpdateKind, StockUpdateOutcome
from service_kit.context import CallContext


class PoisonMessage(Exception):
    """A message that can never be handled; `reason` says why, in lower_snake case."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """A readable event; `items` maps product id to quantity."""

    order_id: uuid.UUID
    kind: StockUpdateKind
    items: Mapping[int, int]
    context: CallContext = field(default_factory=CallContext)


@dataclass(frozen=True, slots=True)
class StockUpdateResult:
    """What inventory did about one event."""

    outcome: StockUpdateOutcome
    shortages: Sequence[Shortage] = ()
    unknown_product_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an order is to be settled; `shortages` explain a rejection."""

    order_id: uuid.UUID
    outcome: SettlementOutcome
    shortages: Sequence[Shortage] = ()
    context: CallContext = field(default_factory=CallContext)


@dataclass(frozen=True, slots=True)
class EventResult:
    """What became of an event: with `poison` it can never be handled, else it is handled.

    `order_status` is the order's status after settlement; None if there was nothing to settle.
    """

    stock: StockUpdateResult | None = None
    order_status: str | None = None
    poison: PoisonMessage | None = None


_SETTLEMENT_OUTCOMES = {
    (StockUpdateKind.DEDUCT, StockUpdateOutcome.APPLIED): SettlementOutcome.CONFIRMED,
    (StockUpdateKind.DEDUCT, StockUpdateOutcome.INSUFFICIENT_STOCK): SettlementOutcome.REJECTED,
    (StockUpdateKind.RESTORE, StockUpdateOutcome.APPLIED): SettlementOutcome.RELEASED,
    (StockUpdateKind.RESTORE, StockUpdateOutcome.CANCELLED): SettlementOutcome.RELEASED,
}


def settlement_for(event: OrderEvent, result: StockUpdateResult) -> Settlement | None:
    """How to settle the event's order, or None if there is nothing to settle.

    That is so for an unknown product, and for a deduction that arrives after its cancellation: it
    deducts nothing, and the order is cancelled already.
    """
    outcome = _SETTLEMENT_OUTCOMES.get((event.kind, result.outcome))
    if outcome is None:
        return None
    return Settlement(event.order_id, outcome, result.shortages, event.context)
