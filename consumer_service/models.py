"""What the consumer speaks of: events, what inventory answered, what the orders are told."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from service_kit.context import CallContext


class Kind(StrEnum):
    """What an event asks of stock."""

    DEDUCT = "DEDUCT"
    RESTORE = "RESTORE"


class StockOutcome(StrEnum):
    """Inventory's answer."""

    APPLIED = "APPLIED"
    INSUFFICIENT_STOCK = "INSUFFICIENT_STOCK"
    CANCELLED = "CANCELLED"
    UNKNOWN_PRODUCT = "UNKNOWN_PRODUCT"


class Verdict(StrEnum):
    """What an order is told."""

    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"
    RELEASED = "RELEASED"


class PoisonError(Exception):
    """A message that can never be handled; `reason` goes with it to the dead-letter queue."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """A readable event; `items` maps product id to quantity."""

    order_id: uuid.UUID
    kind: Kind
    items: Mapping[int, int]
    caller: CallContext = field(default_factory=CallContext)


@dataclass(frozen=True, slots=True)
class Shortage:
    """An item that stock did not cover."""

    product_id: int
    requested: int
    available: int


@dataclass(frozen=True, slots=True)
class StockAnswer:
    """Inventory's answer to one event."""

    outcome: StockOutcome
    shortages: Sequence[Shortage] = ()
    unknown_product_ids: Sequence[int] = ()

    def verdict(self, kind: Kind) -> Verdict | None:
        """What to tell the order; None if there is nothing to tell."""
        if self.outcome is StockOutcome.UNKNOWN_PRODUCT:
            return None
        if kind is Kind.RESTORE:
            return Verdict.RELEASED
        # A deduction that came after its cancellation took nothing, and the order knows.
        return {
            StockOutcome.APPLIED: Verdict.CONFIRMED,
            StockOutcome.INSUFFICIENT_STOCK: Verdict.REJECTED,
        }.get(self.outcome)
