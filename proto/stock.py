"""What services say about stock, as `ecommerce.inventory.v1` names it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class StockUpdateKind(StrEnum):
    """What an order asks of stock."""

    DEDUCT = "DEDUCT"
    RESTORE = "RESTORE"


class StockUpdateOutcome(StrEnum):
    """The outcome of an order-driven update."""

    APPLIED = "APPLIED"
    INSUFFICIENT_STOCK = "INSUFFICIENT_STOCK"
    CANCELLED = "CANCELLED"
    """The order was cancelled before any of its stock was deducted: none is, nor will be."""
    UNKNOWN_PRODUCT = "UNKNOWN_PRODUCT"


class StockMovementKind(StrEnum):
    """Kinds of ledger rows: `initial + adjustments = stock + deducted - restored`."""

    INITIAL = "INITIAL"
    ADJUSTMENT = "ADJUSTMENT"
    DEDUCT = "DEDUCT"
    RESTORE = "RESTORE"


class ReservationState(StrEnum):
    """What was decided for an order; CANCELLED is the tombstone of one never deducted."""

    DEDUCTED = "DEDUCTED"
    REJECTED = "REJECTED"
    RESTORED = "RESTORED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Shortage:
    """An item that stock did not cover."""

    product_id: int
    requested: int
    available: int

    @classmethod
    def from_message(cls, message: "ShortageMessage") -> "Shortage":
        """The shortage in a message of the inventory or the order service."""
        return cls(message.product_id, message.requested, message.available)


class ShortageMessage(Protocol):
    """The fields that `ecommerce.inventory.v1.Shortage` and `ecommerce.order.v1.Shortage` share."""

    product_id: int
    requested: int
    available: int
