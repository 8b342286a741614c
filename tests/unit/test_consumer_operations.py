"""For whom the consumer asks its neighbours."""

import uuid
from collections.abc import Sequence
from typing import Any, cast

from consumer_service.clients import InventoryClient, OrderClient, Settlement
from consumer_service.models import Kind, OrderEvent, StockAnswer, StockOutcome
from consumer_service.operations import handle
from service_kit.context import CallContext, current
from service_kit.errors import InvalidArgument


class Neighbours:
    """Inventory and the orders in one, noting who asks; more than one event at once is refused."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def update_stock(self, events: Sequence[OrderEvent]) -> list[StockAnswer]:
        self.asked.append(current().request_id)
        if len(events) > 1:
            raise InvalidArgument("INVALID_QUANTITY", "one of them")
        return [StockAnswer(StockOutcome.APPLIED)]

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        self.asked.append(current().request_id)
        return [True] * len(settlements)


async def test_a_call_for_one_event_is_its_callers() -> None:
    neighbours: Any = Neighbours()
    events = [
        OrderEvent(uuid.uuid4(), Kind.DEDUCT, {1: 1}, CallContext(name)) for name in ("a", "b")
    ]
    inventory, orders = cast("InventoryClient", neighbours), cast("OrderClient", neighbours)
    assert await handle(inventory, orders, events) == {}
    assert neighbours.asked == ["", "a", "a", "b", "b"]
    assert current() == CallContext()
