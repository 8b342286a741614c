"""The client of order_service; orders placed at the same time travel in one call."""

import asyncio
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from api_gateway import converters
from api_gateway.clients.base import CALL_SECONDS, ServiceClient
from api_gateway.schemas import requests, responses
from proto import order_pb2
from proto.order_pb2_grpc import OrderServiceStub
from service_kit import context
from service_kit.batching import Batcher
from service_kit.errors import DeadlineExceeded, ServiceError
from service_kit.grpc.client import call
from service_kit.grpc.status import from_status

UNBATCHED_CALLS_IN_FLIGHT = 64
"""Concurrent calls if each carries a single order."""

_IDEMPOTENT = ("GetOrder", "ListOrders", "CancelOrder")


class OrderClient(ServiceClient):
    """Calls order_service."""

    def __init__(self, address: str, batch_max_items: int, batch_linger: float) -> None:
        super().__init__(address, order_pb2.DESCRIPTOR, "OrderService", _IDEMPOTENT)
        self._stub = OrderServiceStub(self._channel)
        self._batcher: Batcher[order_pb2.CreateOrderRequest, responses.Order] = Batcher(
            self._batch_create_orders,
            max_items=batch_max_items,
            # Batches of one are ordinary calls, which do not wait for each other.
            max_in_flight=1 if batch_max_items > 1 else UNBATCHED_CALLS_IN_FLIGHT,
            linger=batch_linger,
        )

    async def create_order(
        self, user_id: int, items: Sequence[requests.NewOrderItem], idempotency_key: str
    ) -> responses.Order:
        """The stored order; for a key that was used before with the same items, the first one.

        Raises the errors of OrderService.CreateOrder.
        """
        current = context.current()
        request = order_pb2.CreateOrderRequest(
            user_id=user_id,
            idempotency_key=idempotency_key,
            context=order_pb2.CallContext(
                request_id=current.request_id, traceparent=current.traceparent
            ),
        )
        for item in items:
            request.items.add(
                product_id=item.product_id,
                quantity=item.quantity,
                unit_price_cents=item.unit_price,
            )
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._batcher.submit(request)
        except TimeoutError as error:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "No response in time.") from error

    async def _batch_create_orders(
        self, batch: Sequence[order_pb2.CreateOrderRequest]
    ) -> list[responses.Order | ServiceError]:
        request = order_pb2.BatchCreateOrdersRequest(requests=batch)
        response = await call(self._stub.BatchCreateOrders, request, timeout=CALL_SECONDS)
        return [
            converters.to_order(result.order)
            if result.HasField("order")
            else from_status(result.error)
            for result in response.results
        ]

    async def get_order(
        self, order_id: str, user_id: int, wait_seconds: int = 0
    ) -> responses.Order:
        """The user's order (0: anyone's), once settled or after `wait_seconds`; NotFound."""
        request = order_pb2.GetOrderRequest(
            order_id=order_id, user_id=user_id, wait=Duration(seconds=wait_seconds)
        )
        order = await call(self._stub.GetOrder, request, timeout=CALL_SECONDS + wait_seconds)
        return converters.to_order(order)

    async def list_orders(self, user_id: int, query: requests.OrderQuery) -> responses.OrderPage:
        """A page of the user's orders (0: anyone's)."""
        request = order_pb2.ListOrdersRequest(
            user_id=user_id,
            status=order_pb2.OrderStatus.Value(f"ORDER_STATUS_{query.status or 'UNSPECIFIED'}"),
            page_size=query.page_size,
            page_token=query.page_token,
        )
        response = await call(self._stub.ListOrders, request, timeout=CALL_SECONDS)
        return responses.OrderPage(
            orders=[converters.to_order(order) for order in response.orders],
            next_page_token=response.next_page_token,
        )

    async def cancel_order(self, order_id: str, user_id: int) -> responses.Order:
        """The user's order (0: anyone's), cancelled; NotFound, NOT_CANCELLABLE."""
        request = order_pb2.CancelOrderRequest(order_id=order_id, user_id=user_id)
        order = await call(self._stub.CancelOrder, request, timeout=CALL_SECONDS)
        return converters.to_order(order)

    async def close(self) -> None:
        """Finish the accepted batches, then close the channel."""
        await self._batcher.close()
        await super().close()
