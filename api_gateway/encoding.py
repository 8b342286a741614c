"""From the neighbours' messages to the API's answers."""

from datetime import UTC, datetime, timedelta
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from api_gateway import answers
from api_gateway.money import to_text
from api_gateway.schemas import OrderStatus
from proto import inventory_pb2, order_pb2, user_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES = {
    number: cast("OrderStatus", name.removeprefix("ORDER_STATUS_"))
    for name, number in order_pb2.OrderStatus.items()
}
_MOVEMENT_KINDS = {
    number: cast("answers.MovementKind", name.removeprefix("STOCK_MOVEMENT_KIND_"))
    for name, number in inventory_pb2.StockMovementKind.items()
}


def user(message: user_pb2.User) -> answers.User:
    """An account."""
    return answers.User(
        id=message.id,
        email=message.email,
        name=message.name,
        role="admin" if message.role == user_pb2.ROLE_ADMIN else "customer",
        active=message.active,
        create_time=_time(message.create_time),
    )


def product(message: inventory_pb2.Product) -> answers.Product:
    """A product."""
    return answers.Product(
        id=message.id,
        name=message.name,
        description=message.description,
        price=to_text(message.price_cents),
        stock=message.stock,
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
    )


def movement(message: inventory_pb2.StockMovement) -> answers.StockMovement:
    """A row of the ledger."""
    return answers.StockMovement(
        id=message.id,
        product_id=message.product_id,
        kind=_MOVEMENT_KINDS[message.kind],
        delta=message.delta,
        order_id=message.order_id,
        reason=message.reason,
        create_time=_time(message.create_time),
    )


def order(message: order_pb2.Order) -> answers.Order:
    """An order; with its history if the message has it."""
    answer = answers.Order(
        id=message.id,
        user_id=message.user_id,
        status=_STATUSES[message.status],
        items=[_order_item(item) for item in message.items],
        total_price=to_text(message.total_cents),
        shortages=[_shortage(shortage) for shortage in message.shortages],
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
    )
    if message.history:
        answer["history"] = [
            answers.StatusChange(status=_STATUSES[change.status], time=_time(change.time))
            for change in message.history
        ]
    return answer


def _order_item(item: order_pb2.OrderItem) -> answers.OrderItem:
    return answers.OrderItem(
        product_id=item.product_id,
        name=item.name,
        quantity=item.quantity,
        unit_price=to_text(item.unit_price_cents),
        total_price=to_text(item.unit_price_cents * item.quantity),
    )


def _shortage(shortage: order_pb2.Shortage) -> answers.Shortage:
    return answers.Shortage(
        product_id=shortage.product_id,
        requested=shortage.requested,
        available=shortage.available,
    )


def _time(timestamp: Timestamp) -> datetime:
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
