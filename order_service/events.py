"""The events of an order as CloudEvents, encoded once and stored in the outbox as published."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from uuid_utils.compat import uuid7

from order_service.models import Caller, Item, Order, Shortage, Status
from proto.events import (
    DATA_SCHEMA,
    ORDER_CANCELLED,
    ORDER_CONFIRMED,
    ORDER_CREATED,
    ORDER_REJECTED,
    SOURCE,
    SPEC_VERSION,
)

_TYPES = {
    Status.PENDING: ORDER_CREATED,
    Status.CONFIRMED: ORDER_CONFIRMED,
    Status.REJECTED: ORDER_REJECTED,
    Status.CANCELLED: ORDER_CANCELLED,
}


class OutboxEvent(NamedTuple):
    """A row for the outbox; `body` is the whole CloudEvents envelope."""

    id: uuid.UUID
    order_id: uuid.UUID
    type: str
    body: bytes
    caller: Caller


def order_event(order: Order, caller: Caller, now: dt.datetime) -> OutboxEvent:
    """The event that tells that `order` took its status, at the time `now`."""
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
        data["shortages"] = _shortages(order.shortages)
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
    return OutboxEvent(event_id, order.id, event_type, body, caller)


def _item(item: Item) -> dict[str, int | str]:
    return {
        "product_id": item.product_id,
        "name": item.name,
        "quantity": item.quantity,
        "unit_price_cents": item.unit_price_cents,
    }


def _shortages(shortages: Sequence[Shortage]) -> list[dict[str, int]]:
    return [
        {
            "product_id": short.product_id,
            "requested": short.requested,
            "available": short.available,
        }
        for short in shortages
    ]
