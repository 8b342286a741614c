"""A stub of order_service that accepts every order at once: shows what reaching it costs."""

import asyncio
import sys
import uuid
from typing import Any

import grpc
import uvloop
from grpc.aio import ServicerContext

from proto import order_pb2
from proto.order_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server
from service_kit.grpc.server import serve_grpc

SERVICE_NAME = order_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name

Context = ServicerContext[Any, Any]


class OrderStub(OrderServiceServicer):
    """Accepts new orders and stores nothing; the other methods are UNIMPLEMENTED."""

    async def CreateOrder(  # noqa: N802 - named by the proto
        self, request: order_pb2.CreateOrderRequest, context: Context
    ) -> order_pb2.Order:
        """The order, as if it were stored."""
        return _order(request)

    async def BatchCreateOrders(  # noqa: N802 - named by the proto
        self, request: order_pb2.BatchCreateOrdersRequest, context: Context
    ) -> order_pb2.BatchCreateOrdersResponse:
        """The orders, as if they were stored."""
        results = [order_pb2.CreateOrderResult(order=_order(each)) for each in request.requests]
        return order_pb2.BatchCreateOrdersResponse(results=results)


def _order(request: order_pb2.CreateOrderRequest) -> order_pb2.Order:
    order = order_pb2.Order(
        id=str(uuid.uuid4()),
        user_id=request.user_id,
        status=order_pb2.ORDER_STATUS_PENDING,
        items=[
            order_pb2.OrderItem(
                product_id=item.product_id,
                name="Product",
                quantity=item.quantity,
                unit_price_cents=500,
            )
            for item in request.items
        ],
        total_cents=500,
    )
    order.create_time.GetCurrentTime()
    order.update_time.GetCurrentTime()
    return order


def _add(server: grpc.aio.Server) -> None:
    # The generated base class has the other methods.
    add_OrderServiceServicer_to_server(OrderStub(), server)  # type: ignore[abstract]


async def _serve(address: str) -> None:
    async with serve_grpc(address, {SERVICE_NAME: _add}):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
