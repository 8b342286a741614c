"""The services that consumer_service calls: inventory and orders."""

import uuid
from collections.abc import Sequence

import grpc

from consumer_service.domain import OrderEvent, Settlement, StockUpdateResult
from proto import inventory_pb2, order_pb2
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.order_pb2_grpc import OrderServiceStub
from proto.orders import SettlementOutcome
from proto.stock import ReservationState, Shortage, StockUpdateKind, StockUpdateOutcome
from service_kit.grpc.client import call, open_channel

CALL_SECONDS = 10.0

_STOCK_UPDATE_KINDS = {
    kind: inventory_pb2.StockUpdateKind.Value(f"STOCK_UPDATE_KIND_{kind}")
    for kind in StockUpdateKind
}
_STOCK_UPDATE_OUTCOMES = {
    inventory_pb2.StockUpdateOutcome.Value(f"STOCK_UPDATE_OUTCOME_{outcome}"): outcome
    for outcome in StockUpdateOutcome
}
_RESERVATION_STATES = {
    inventory_pb2.ReservationState.Value(f"RESERVATION_STATE_{state}"): state
    for state in ReservationState
}
_SETTLEMENT_OUTCOMES = {
    outcome: order_pb2.SettlementOutcome.Value(f"SETTLEMENT_OUTCOME_{outcome}")
    for outcome in SettlementOutcome
}
_ORDER_STATUSES = {
    value: None if value == order_pb2.ORDER_STATUS_UNSPECIFIED else name
    for name, value in (
        (name.removeprefix("ORDER_STATUS_"), value) for name, value in order_pb2.OrderStatus.items()
    )
}


def open_inventory_channel(address: str) -> grpc.aio.Channel:
    """A channel to the inventory service; UpdateStock is idempotent."""
    return open_channel(address, "ecommerce.inventory.v1.InventoryService", ["UpdateStock"])


def open_order_channel(address: str) -> grpc.aio.Channel:
    """A channel to the order service; SettleOrders is idempotent."""
    return open_channel(address, "ecommerce.order.v1.OrderService", ["SettleOrders"])


class InventoryClient:
    """Updates stock; with `validate_only` every update is rolled back."""

    def __init__(self, channel: grpc.aio.Channel, *, validate_only: bool = False) -> None:
        self._stub = InventoryServiceStub(channel)
        self._validate_only = validate_only

    async def update_stock(self, events: Sequence[OrderEvent]) -> list[StockUpdateResult]:
        """Apply the events (1,000 at most) to stock; one result per event, in their order."""
        request = inventory_pb2.UpdateStockRequest(
            updates=[_stock_update(event) for event in events], validate_only=self._validate_only
        )
        response = await call(self._stub.UpdateStock, request, timeout=CALL_SECONDS)
        return [
            StockUpdateResult(
                _STOCK_UPDATE_OUTCOMES[result.outcome],
                [Shortage.from_message(shortage) for shortage in result.shortages],
                list(result.unknown_product_ids),
            )
            for result in response.results
        ]

    async def get_reservations(
        self, order_ids: Sequence[uuid.UUID]
    ) -> dict[uuid.UUID, ReservationState]:
        """The reservations of these orders (1,000 at most); orders without one are left out."""
        request = inventory_pb2.BatchGetReservationsRequest(order_ids=map(str, order_ids))
        response = await call(self._stub.BatchGetReservations, request, timeout=CALL_SECONDS)
        return {
            uuid.UUID(each.order_id): _RESERVATION_STATES[each.state]
            for each in response.reservations
        }


class OrderClient:
    """Settles orders; with `validate_only` every settlement is rolled back."""

    def __init__(self, channel: grpc.aio.Channel, *, validate_only: bool = False) -> None:
        self._stub = OrderServiceStub(channel)
        self._validate_only = validate_only

    async def settle_orders(self, settlements: Sequence[Settlement]) -> list[str | None]:
        """Settle orders (at most 1,000); each one's status afterwards, None if unknown."""
        request = order_pb2.SettleOrdersRequest(
            settlements=[_settlement(each) for each in settlements],
            validate_only=self._validate_only,
        )
        response = await call(self._stub.SettleOrders, request, timeout=CALL_SECONDS)
        return [_ORDER_STATUSES[result.status] for result in response.results]


def _stock_update(event: OrderEvent) -> inventory_pb2.StockUpdate:
    return inventory_pb2.StockUpdate(
        order_id=str(event.order_id),
        kind=_STOCK_UPDATE_KINDS[event.kind],
        items=[
            inventory_pb2.StockItem(product_id=product_id, quantity=quantity)
            for product_id, quantity in event.items.items()
        ],
    )


def _settlement(settlement: Settlement) -> order_pb2.Settlement:
    return order_pb2.Settlement(
        order_id=str(settlement.order_id),
        outcome=_SETTLEMENT_OUTCOMES[settlement.outcome],
        shortages=[
            order_pb2.Shortage(
                product_id=shortage.product_id,
                requested=shortage.requested,
                available=shortage.available,
            )
            for shortage in settlement.shortages
        ],
        context=order_pb2.CallContext(
            request_id=settlement.context.request_id, traceparent=settlement.context.traceparent
        ),
    )
