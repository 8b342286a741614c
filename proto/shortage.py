"""An item that stock did not cover, as every service represents it."""

from dataclasses import dataclass
from typing import Protocol


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
