"""What the order service and the consumer say about orders, as `ecommerce.order.v1` names it."""

from enum import StrEnum


class SettlementOutcome(StrEnum):
    """What inventory decided for an order."""

    CONFIRMED = "CONFIRMED"
    """The stock was deducted: PENDING becomes CONFIRMED."""
    REJECTED = "REJECTED"
    """The stock did not suffice: PENDING becomes REJECTED."""
    RELEASED = "RELEASED"
    """The stock of a CANCELLED order was restored: nothing is left to do for it."""
