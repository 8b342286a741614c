"""The neighbours of consumer_service."""

import uuid
from collections.abc import Sequence

import grpc

from consumer_service.models import (
    Kind,
    OrderEvent,
    Shortage,
    StockAnswer,
    StockOutcome,
    Verdict,
)
from proto import inventory_pb2, order_pb2
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.order_pb2_grpc import OrderServiceStub
from service_kit.grpc.client import call, open_channel

CALL_SECONDS = 10.0

Settlement = tuple[OrderEvent, Verdict, Sequence[Shortage]]
"""What an order is told, because of which event."""

_KINDS = {
    Kind.DEDUCT: inventory_pb2.STOCK_UPDATE_KIND_DEDUCT,
    Kind.RESTORE: inventory_pb2.STOCK_UPDATE_KIND_RESTORE,
}
_STOCK_OUTCOMES = {
    inventory_pb2.StockUpdateOutcome.Value(f"STOCK_UPDATE_OUTCOME_{outcome}"): outcome
    for outcome in StockOutcome
}
_VERDICTS = {
    verdict: order_pb2.SettlementOutcome.Value(f"SETTLEMENT_OUTCOME_{verdict}")
    for verdict in Verdict
}


def open_inventory_channel(address: str) -> grpc.aio.Channel:
    """A channel to the inventory service; UpdateStock is idempotent."""
    return open_channel(address, "ecommerce.inventory.v1.InventoryService", ["UpdateStock"])


def open_order_channel(address: str) -> grpc.aio.Channel:
    """A channel to the order service; SettleOrders is idempotent."""
    return open_channel(address, "ecommerce.order.v1.OrderService", ["SettleOrders"])


class InventoryClient:
    """Where stock is updated; with `validate_only` nothing stays of it."""

    def __init__(self, channel: grpc.aio.Channel, *, validate_only: bool = False) -> None:
        self._stub = InventoryServiceStub(channel)
        self._validate_only = validate_only

    async def update_stock(self, events: Sequence[OrderEvent]) -> list[StockAnswer]:
        """Apply what the events ask for; one answer each, in their order."""
        request = inventory_pb2.UpdateStockRequest(
            updates=[_update(event) for event in events], validate_only=self._validate_only
        )
        answer = await call(self._stub.UpdateStock, request, timeout=CALL_SECONDS)
        return [
            StockAnswer(
                _STOCK_OUTCOMES[result.outcome],
                [Shortage(s.product_id, s.requested, s.available) for s in result.shortages],
                list(result.unknown_product_ids),
            )
            for result in answer.results
        ]

    async def decided(self, order_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
        """What was decided for those of these orders (1,000 at most) that it was for."""
        request = inventory_pb2.BatchGetReservationsRequest(order_ids=map(str, order_ids))
        answer = await call(self._stub.BatchGetReservations, request, timeout=CALL_SECONDS)
        name = inventory_pb2.ReservationState.Name
        return {
            uuid.UUID(each.order_id): name(each.state).removeprefix("RESERVATION_STATE_")
            for each in answer.reservations
        }


class OrderClient:
    """Where orders are settled; with `validate_only` nothing stays of it."""

    def __init__(self, channel: grpc.aio.Channel, *, validate_only: bool = False) -> None:
        self._stub = OrderServiceStub(channel)
        self._validate_only = validate_only

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Tell the orders; for each whether there is such an order."""
        answer = await self._settle(settlements)
        return [result.status != order_pb2.ORDER_STATUS_UNSPECIFIED for result in answer.results]

    async def statuses(self, settlements: Sequence[Settlement]) -> list[str]:
        """Tell the orders; for each its status then, "" if there is no such order."""
        answer = await self._settle(settlements)
        name = order_pb2.OrderStatus.Name
        return [
            name(result.status).removeprefix("ORDER_STATUS_") if result.status else ""
            for result in answer.results
        ]

    async def _settle(self, settlements: Sequence[Settlement]) -> order_pb2.SettleOrdersResponse:
        request = order_pb2.SettleOrdersRequest(
            settlements=[_settlement(*settlement) for settlement in settlements],
            validate_only=self._validate_only,
        )
        return await call(self._stub.SettleOrders, request, timeout=CALL_SECONDS)


def _update(event: OrderEvent) -> inventory_pb2.StockUpdate:
    return inventory_pb2.StockUpdate(
        order_id=str(event.order_id),
        kind=_KINDS[event.kind],
        items=[
            inventory_pb2.StockItem(product_id=product_id, quantity=quantity)
            for product_id, quantity in event.items.items()
        ],
    )


def _settlement(
    event: OrderEvent, verdict: Verdict, shortages: Sequence[Shortage]
) -> order_pb2.Settlement:
    return order_pb2.Settlement(
        order_id=str(event.order_id),
        outcome=_VERDICTS[verdict],
        shortages=[
            order_pb2.Shortage(
                product_id=short.product_id, requested=short.requested, available=short.available
            )
            for short in shortages
        ],
        context=order_pb2.CallContext(
            request_id=event.caller.request_id, traceparent=event.caller.traceparent
        ),
    )
