"""OrderService over gRPC: decode, operate, encode."""

import datetime as dt
import uuid
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import ServicerContext

from order_service import operations
from order_service.models import Caller, Draft, Order, Settlement, Shortage, Status, WantedItem
from order_service.operations import Shop
from proto import order_pb2 as pb
from proto.order_pb2_grpc import OrderServiceServicer
from service_kit import context as call_context
from service_kit.errors import InvalidArgument, NotFound, ServiceError
from service_kit.grpc.converters import parse_uuid
from service_kit.grpc.status import to_status

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["OrderService"].full_name

Context = ServicerContext[Any, Any]

_NUMBER: dict[Status | None, "pb.OrderStatus.ValueType"] = {
    status: pb.OrderStatus.Value(f"ORDER_STATUS_{status}") for status in Status
}
_NUMBER[None] = pb.ORDER_STATUS_UNSPECIFIED
_STATUS = {number: status for status, number in _NUMBER.items()}
_OUTCOME = {
    pb.SETTLEMENT_OUTCOME_CONFIRMED: Status.CONFIRMED,
    pb.SETTLEMENT_OUTCOME_REJECTED: Status.REJECTED,
    pb.SETTLEMENT_OUTCOME_RELEASED: None,
}


class OrderServicer(OrderServiceServicer):
    """Serves the orders of `shop`."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.Order:
        (result,) = await operations.create_orders(self._shop, [_draft(request)])
        if isinstance(result, ServiceError):
            raise result
        return _order(result)

    async def BatchCreateOrders(
        self, request: pb.BatchCreateOrdersRequest, context: Context
    ) -> pb.BatchCreateOrdersResponse:
        drafts = [_draft(each) for each in request.requests]
        results = await operations.create_orders(self._shop, drafts)
        return pb.BatchCreateOrdersResponse(results=map(_result, results))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.Order:
        wait = request.wait.seconds + request.wait.nanos / 1e9
        order_id = _order_id(request.order_id)
        return _order(await operations.get_order(self._shop, order_id, request.user_id, wait))

    async def ListOrders(
        self, request: pb.ListOrdersRequest, context: Context
    ) -> pb.ListOrdersResponse:
        page, token = await operations.list_orders(
            self._shop,
            user_id=request.user_id,
            status=_status(request.status),
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListOrdersResponse(orders=map(_order, page), next_page_token=token)

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.Order:
        current = call_context.current()
        caller = Caller(current.request_id, current.traceparent)
        order_id = _order_id(request.order_id)
        return _order(await operations.cancel_order(self._shop, order_id, request.user_id, caller))

    async def SettleOrders(
        self, request: pb.SettleOrdersRequest, context: Context
    ) -> pb.SettleOrdersResponse:
        settlements = [_settlement(each) for each in request.settlements]
        statuses = await operations.settle_orders(
            self._shop, settlements, validate_only=request.validate_only
        )
        return pb.SettleOrdersResponse(
            results=[
                pb.SettlementResult(
                    order_id=str(each.order_id),
                    status=_NUMBER[statuses.get(each.order_id)],
                )
                for each in settlements
            ]
        )


def _draft(request: pb.CreateOrderRequest) -> Draft:
    return Draft(
        request.user_id,
        [
            WantedItem(
                item.product_id,
                item.quantity,
                item.unit_price_cents if item.HasField("unit_price_cents") else None,
            )
            for item in request.items
        ],
        request.idempotency_key,
        _caller(request.context) if request.HasField("context") else _current_caller(),
    )


def _current_caller() -> Caller:
    current = call_context.current()
    return Caller(current.request_id, current.traceparent)


def _caller(caller: pb.CallContext) -> Caller:
    return Caller(caller.request_id, caller.traceparent)


def _settlement(settlement: pb.Settlement) -> Settlement:
    if settlement.outcome not in _OUTCOME:
        raise InvalidArgument("INVALID_OUTCOME", "outcome must be CONFIRMED, REJECTED or RELEASED")
    return Settlement(
        parse_uuid(settlement.order_id, "order_id"),
        _OUTCOME[settlement.outcome],
        [Shortage(s.product_id, s.requested, s.available) for s in settlement.shortages],
        _caller(settlement.context),
    )


def _status(number: "pb.OrderStatus.ValueType") -> Status | None:
    if number not in _STATUS:
        raise InvalidArgument("INVALID_STATUS", "there is no such status")
    return _STATUS[number]


def _order_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise NotFound("ORDER_NOT_FOUND", "there is no such order") from error


def _result(result: Order | ServiceError) -> pb.CreateOrderResult:
    if isinstance(result, ServiceError):
        return pb.CreateOrderResult(error=to_status(result))
    return pb.CreateOrderResult(order=_order(result))


def _order(order: Order) -> pb.Order:
    return pb.Order(
        id=str(order.id),
        user_id=order.user_id,
        status=_NUMBER[order.status],
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
        create_time=_timestamp(order.created_at),
        update_time=_timestamp(order.updated_at),
        history=[
            pb.StatusChange(status=_NUMBER[change.status], time=_timestamp(change.changed_at))
            for change in order.history
        ],
    )


@lru_cache(maxsize=64)
def _timestamp(moment: dt.datetime) -> Timestamp:
    # The orders of a batch share their moments.
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
