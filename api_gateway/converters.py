"""From the services' protobuf messages to the API's responses."""

from typing import cast

from api_gateway.schemas import responses
from api_gateway.schemas.fields import OrderStatus
from api_gateway.schemas.money import format_cents
from proto import inventory_pb2, order_pb2, user_pb2
from service_kit.grpc.converters import from_timestamp

_STATUSES = {
    number: cast("OrderStatus", name.removeprefix("ORDER_STATUS_"))
    for name, number in order_pb2.OrderStatus.items()
}
_MOVEMENT_KINDS = {
    number: cast("responses.MovementKind", name.removeprefix("STOCK_MOVEMENT_KIND_"))
    for name, number in inventory_pb2.StockMovementKind.items()
}


def to_user(message: user_pb2.User) -> responses.User:
    """A user account."""
    return responses.User(
        id=message.id,
        email=message.email,
        name=message.name,
        role="admin" if message.role == user_pb2.ROLE_ADMIN else "customer",
        active=message.active,
        create_time=from_timestamp(message.create_time),
    )


def to_product(message: inventory_pb2.Product) -> responses.Product:
    """A product."""
    return responses.Product(
        id=message.id,
        name=message.name,
        description=message.description,
        price=format_cents(message.price_cents),
        stock=message.stock,
        create_time=from_timestamp(message.create_time),
        update_time=from_timestamp(message.update_time),
    )


def to_stock_movement(message: inventory_pb2.StockMovement) -> responses.StockMovement:
    """A row of the stock ledger."""
    return responses.StockMovement(
        id=message.id,
        product_id=message.product_id,
        kind=_MOVEMENT_KINDS[message.kind],
        delta=message.delta,
        order_id=message.order_id,
        reason=message.reason,
        create_time=from_timestamp(message.create_time),
    )


def to_order(message: order_pb2.Order) -> responses.Order:
    """An order, with its history if the message has one."""
    response = responses.Order(
        id=message.id,
        user_id=message.user_id,
        status=_STATUSES[message.status],
        items=[_to_order_item(item) for item in message.items],
        total_price=format_cents(message.total_cents),
        shortages=[_to_shortage(shortage) for shortage in message.shortages],
        create_time=from_timestamp(message.create_time),
        update_time=from_timestamp(message.update_time),
    )
    if message.history:
        response["history"] = [
            responses.StatusChange(
                status=_STATUSES[change.status], time=from_timestamp(change.time)
            )
            for change in message.history
        ]
    return response


def _to_order_item(item: order_pb2.OrderItem) -> responses.OrderItem:
    return responses.OrderItem(
        product_id=item.product_id,
        name=item.name,
        quantity=item.quantity,
        unit_price=format_cents(item.unit_price_cents),
        total_price=format_cents(item.unit_price_cents * item.quantity),
    )


def _to_shortage(shortage: order_pb2.Shortage) -> responses.Shortage:
    return responses.Shortage(
        product_id=shortage.product_id,
        requested=shortage.requested,
        available=shortage.available,
    )
