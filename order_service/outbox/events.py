"""The events of an order as CloudEvents, encoded once and stored as they are published."""

import datetime as dt
from typing import Any

import orjson
from uuid_utils.compat import uuid7

from order_service.domain import Order, OrderItem, OrderStatus, OutboxEvent
from proto.events import (
    DATA_SCHEMA,
    ORDER_CANCELLED,
    ORDER_CONFIRMED,
    ORDER_CREATED,
    ORDER_REJECTED,
    SOURCE,
    SPEC_VERSION,
)
from service_kit.context import CallContext

_TYPES = {
    OrderStatus.PENDING: ORDER_CREATED,
    OrderStatus.CONFIRMED: ORDER_CONFIRMED,
    OrderStatus.REJECTED: ORDER_REJECTED,
    OrderStatus.CANCELLED: ORDER_CANCELLED,
}


def order_event(order: Order, context: CallContext, now: dt.datetime) -> OutboxEvent:
    """The event that reports the status of `order`, caused by the call of `context`."""
    event_id, order_id = uuid7(), str(order.id)
    event_type = _TYPES[order.status]
    data: dict[str, Any] = {
        "order_id": order_id,
        "user_id": order.user_id,
        "status": order.status,
        "total_cents": order.total_cents,
    }
    if order.items:
        data["items"] = [_item(item) for item in order.items]
    if order.shortages:
        data["shortages"] = list(order.shortages)
    body = orjson.dumps(
        {
            "specversion": SPEC_VERSION,
            "id": event_id,
            "source": SOURCE,
            "type": event_type,
            "subject": order_id,
            "time": now,
            "datacontenttype": "application/json",
            "dataschema": DATA_SCHEMA,
            "data": data,
        }
    )
    return OutboxEvent(event_id, order.id, event_type, body, context)


def _item(item: OrderItem) -> dict[str, int | str]:
    return {
        "product_id": item.product_id,
        "name": item.name,
        "quantity": item.quantity,
        "unit_price_cents": item.unit_price_cents,
    }
