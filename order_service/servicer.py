"""OrderService over gRPC: decode, operate, encode."""

import uuid
from typing import Any

from grpc.aio import ServicerContext

from order_service import operations
from order_service.domain import Order, OrderRequest, OrderStatus, RequestedItem, Settlement
from order_service.operations import OrderDependencies
from proto import order_pb2 as pb
from proto.order_pb2_grpc import OrderServiceServicer
from proto.orders import SettlementOutcome
from proto.stock import Shortage
from service_kit.context import CallContext, current
from service_kit.errors import InvalidArgument, NotFound, ServiceError
from service_kit.grpc.converters import parse_uuid, to_timestamp
from service_kit.grpc.status import to_status

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["OrderService"].full_name

Context = ServicerContext[Any, Any]

_STATUS_NUMBERS = {status: pb.OrderStatus.Value(f"ORDER_STATUS_{status}") for status in OrderStatus}
_STATUSES = {number: status for status, number in _STATUS_NUMBERS.items()}
_OUTCOMES = {
    pb.SettlementOutcome.Value(f"SETTLEMENT_OUTCOME_{outcome}"): outcome
    for outcome in SettlementOutcome
}


class OrderServicer(OrderServiceServicer):
    """Serves orders."""

    def __init__(self, dependencies: OrderDependencies) -> None:
        self._dependencies = dependencies

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.Order:
        (result,) = await operations.create_orders(self._dependencies, [_order_request(request)])
        if isinstance(result, ServiceError):
            raise result
        return _order(result)

    async def BatchCreateOrders(
        self, request: pb.BatchCreateOrdersRequest, context: Context
    ) -> pb.BatchCreateOrdersResponse:
        requests = [_order_request(each) for each in request.requests]
        results = await operations.create_orders(self._dependencies, requests)
        return pb.BatchCreateOrdersResponse(results=map(_create_result, results))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.Order:
        wait = request.wait.seconds + request.wait.nanos / 1e9
        order_id = _order_id(request.order_id)
        return _order(
            await operations.get_order(self._dependencies, order_id, request.user_id, wait)
        )

    async def ListOrders(
        self, request: pb.ListOrdersRequest, context: Context
    ) -> pb.ListOrdersResponse:
        orders, next_token = await operations.list_orders(
            self._dependencies,
            user_id=request.user_id,
            status=_status(request.status),
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListOrdersResponse(orders=map(_order, orders), next_page_token=next_token)

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.Order:
        order_id = _order_id(request.order_id)
        return _order(
            await operations.cancel_order(self._dependencies, order_id, request.user_id, current())
        )

    async def SettleOrders(
        self, request: pb.SettleOrdersRequest, context: Context
    ) -> pb.SettleOrdersResponse:
        settlements = [_settlement(each) for each in request.settlements]
        statuses = await operations.settle_orders(
            self._dependencies, settlements, validate_only=request.validate_only
        )
        return pb.SettleOrdersResponse(
            results=[_settlement_result(each, statuses.get(each.order_id)) for each in settlements]
        )


def _order_request(request: pb.CreateOrderRequest) -> OrderRequest:
    return OrderRequest(
        request.user_id,
        [
            RequestedItem(
                item.product_id,
                item.quantity,
                item.unit_price_cents if item.HasField("unit_price_cents") else None,
            )
            for item in request.items
        ],
        request.idempotency_key,
        _call_context(request.context) if request.HasField("context") else current(),
    )


def _call_context(context: pb.CallContext) -> CallContext:
    return CallContext(context.request_id, context.traceparent)


def _settlement(settlement: pb.Settlement) -> Settlement:
    if settlement.outcome not in _OUTCOMES:
        raise InvalidArgument(
            "INVALID_OUTCOME", "The outcome must be CONFIRMED, REJECTED or RELEASED."
        )
    return Settlement(
        parse_uuid(settlement.order_id, "order_id"),
        _OUTCOMES[settlement.outcome],
        [Shortage.from_message(each) for each in settlement.shortages],
        _call_context(settlement.context),
    )


def _settlement_result(settlement: Settlement, status: OrderStatus | None) -> pb.SettlementResult:
    number = pb.ORDER_STATUS_UNSPECIFIED if status is None else _STATUS_NUMBERS[status]
    return pb.SettlementResult(order_id=str(settlement.order_id), status=number)


def _status(number: "pb.OrderStatus.ValueType") -> OrderStatus | None:
    """The status to list; None for all."""
    if number == pb.ORDER_STATUS_UNSPECIFIED:
        return None
    if number not in _STATUSES:
        raise InvalidArgument("INVALID_STATUS", "Unknown order status.")
    return _STATUSES[number]


def _order_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise NotFound("ORDER_NOT_FOUND", "The order does not exist.") from error


def _create_result(result: Order | ServiceError) -> pb.CreateOrderResult:
    if isinstance(result, ServiceError):
        return pb.CreateOrderResult(error=to_status(result))
    return pb.CreateOrderResult(order=_order(result))


def _order(order: Order) -> pb.Order:
    return pb.Order(
        id=str(order.id),
        user_id=order.user_id,
        status=_STATUS_NUMBERS[order.status],
        items=[
            pb.OrderItem(
                product_id=item.product_id,
                name=item.name,
                quantity=item.quantity,
                unit_price_cents=item.unit_price_cents,
            )
            for item in order.items
        ],
        total_cents=order.total_cents,
        shortages=[
            pb.Shortage(
                product_id=short.product_id, requested=short.requested, available=short.available
            )
            for short in order.shortages
        ],
        create_time=to_timestamp(order.created_at),
        update_time=to_timestamp(order.updated_at),
        history=[
            pb.StatusChange(
                status=_STATUS_NUMBERS[change.status], time=to_timestamp(change.changed_at)
            )
            for change in order.history
        ],
    )
