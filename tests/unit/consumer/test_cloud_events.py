"""Order events are read as the order service writes them; all else is a poison message."""

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_service.cloud_events import read_event
from consumer_service.domain import OrderEvent, PoisonMessage
from order_service.domain import Order, OrderItem, OrderStatus
from order_service.outbox.events import order_event
from proto.events import DATA_SCHEMA, EVENT_TYPES, INVENTORY_EVENT_TYPES
from proto.limits import MAX_ORDER_ITEMS, MAX_QUANTITY
from proto.stock import Shortage, StockUpdateKind
from service_kit.context import CallContext

NOW = dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)
ORDER_ID = uuid.UUID("019abcde-0000-7000-8000-000000000001")
CONTEXT = CallContext("request-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")

items = st.builds(
    OrderItem,
    product_id=st.integers(1, 2**63 - 1),
    name=st.text(max_size=20),
    quantity=st.integers(1, MAX_QUANTITY),
    unit_price_cents=st.integers(0, 10**12),
)
orders = st.builds(
    Order,
    id=st.uuids(),
    user_id=st.integers(1, 2**63 - 1),
    status=st.sampled_from([OrderStatus.PENDING, OrderStatus.CANCELLED]),
    items=st.lists(items, min_size=1, max_size=5, unique_by=lambda item: item.product_id),
    total_cents=st.integers(0, 2**63 - 1),
    created_at=st.just(NOW),
    updated_at=st.just(NOW),
    shortages=st.just(()),
    history=st.just(()),
)


def envelope(**changes: Any) -> dict[str, Any]:
    """A valid `order.created`, with some attributes changed; None leaves one out."""
    attributes = {
        "specversion": "1.0",
        "id": "1",
        "source": "/order-service",
        "type": "order.created",
        "subject": str(ORDER_ID),
        "dataschema": DATA_SCHEMA,
        "data": {"order_id": str(ORDER_ID), "items": [{"product_id": 1, "quantity": 2}]},
        **changes,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def body(**changes: Any) -> bytes:
    return json.dumps(envelope(**changes)).encode()


def data(**changes: Any) -> dict[str, Any]:
    return {**envelope()["data"], **changes}


@given(orders)
def test_the_consumer_reads_what_the_order_service_writes(order: Order) -> None:
    event = order_event(order, CallContext(), NOW)
    created = order.status is OrderStatus.PENDING
    kind = StockUpdateKind.DEDUCT if created else StockUpdateKind.RESTORE
    quantities = {item.product_id: item.quantity for item in order.items}
    assert read_event(event.body, CONTEXT) == OrderEvent(order.id, kind, quantities, CONTEXT)


@pytest.mark.parametrize(
    ("status", "event_type"),
    list(zip(OrderStatus, EVENT_TYPES, strict=True)),
    ids=list(OrderStatus),
)
def test_an_event_is_a_cloud_event_in_readable_json(status: OrderStatus, event_type: str) -> None:
    shortages = [Shortage(7, 3, 1)] if status is OrderStatus.REJECTED else []
    order = Order(ORDER_ID, 5, status, [OrderItem(7, "Tea", 3, 250)], 750, NOW, NOW, shortages)
    event = order_event(order, CONTEXT, NOW)
    assert (event.type, event.order_id, event.context) == (event_type, ORDER_ID, CONTEXT)
    assert event.id.version == 7
    expected_data = {
        "order_id": str(ORDER_ID),
        "user_id": 5,
        "status": status.value,
        "total_cents": 750,
        "items": [{"product_id": 7, "name": "Tea", "quantity": 3, "unit_price_cents": 250}],
    }
    if shortages:
        expected_data["shortages"] = [{"product_id": 7, "requested": 3, "available": 1}]
    assert json.loads(event.body) == {
        "specversion": "1.0",
        "id": str(event.id),
        "source": "/order-service",
        "type": event_type,
        "subject": str(ORDER_ID),
        "time": "2026-11-23T08:30:00+00:00",
        "datacontenttype": "application/json",
        "dataschema": DATA_SCHEMA,
        "data": expected_data,
    }


def test_an_order_of_the_largest_size_is_read() -> None:
    items = [{"product_id": number, "quantity": 1} for number in range(1, MAX_ORDER_ITEMS + 1)]
    assert len(read_event(body(data=data(items=items)), CONTEXT).items) == MAX_ORDER_ITEMS


def test_quantities_of_a_repeated_product_are_summed() -> None:
    twice = [{"product_id": 1, "quantity": 2}, {"product_id": 1, "quantity": 3}]
    event = read_event(body(data=data(items=twice)), CONTEXT)
    assert event.items == {1: 5}


def test_unknown_attributes_and_fields_are_ignored() -> None:
    event = read_event(body(extension="x", data=data(colour="red")), CONTEXT)
    assert event.order_id == ORDER_ID


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", "unreadable"),
        (b"\xff\xfe", "unreadable"),
        (b"hello", "unreadable"),
        (b"[]", "unreadable"),
        (body() + b"}", "unreadable"),
        (body(data=None), "unreadable"),
        (body(type=None), "unreadable"),
        (body(specversion=1), "unreadable"),
        (body(data="text"), "unreadable"),
        (body(data=data(order_id="7")), "unreadable"),
        (body(data=data(items=[])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": 1}] * 101)), "unreadable"),
        (body(data=data(items=[{"product_id": 0, "quantity": 1}])), "unreadable"),
        (body(data=data(items=[{"product_id": 2**63, "quantity": 1}])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": 0}])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": -1}])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": MAX_QUANTITY + 1}])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": 1.5}])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": "1"}])), "unreadable"),
        (body(data=data(items=[{"quantity": 1}])), "unreadable"),
        (body(specversion="0.3"), "unknown_version"),
        (body(dataschema="urn:ecommerce:order-events:v2"), "unknown_version"),
        (body(dataschema=None), "unknown_version"),
        (body(type="order.confirmed"), "unknown_type"),
        (body(type="order.shipped"), "unknown_type"),
    ],
)
def test_a_poison_message_has_a_reason(message: bytes, expected: str) -> None:
    with pytest.raises(PoisonMessage) as poison:
        read_event(message, CONTEXT)
    assert poison.value.reason == expected
    assert str(poison.value).startswith(f"{expected}: ")


@pytest.mark.parametrize("nested", [b"[" * 200_000, b'{"a":' * 200_000])
def test_nesting_that_is_too_deep_is_unreadable(nested: bytes) -> None:
    message = body(data="HERE").replace(b'"HERE"', nested)
    with pytest.raises(PoisonMessage) as poison:
        read_event(message, CONTEXT)
    assert poison.value.reason == "unreadable"


@given(st.binary() | st.text().map(str.encode))
def test_a_random_message_is_a_poison_message(message: bytes) -> None:
    with pytest.raises(PoisonMessage):
        read_event(message, CONTEXT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.sampled_from(INVENTORY_EVENT_TYPES), json_values)
def test_random_data_is_a_poison_message(event_type: str, value: Any) -> None:
    with pytest.raises(PoisonMessage):
        read_event(body(type=event_type, data=value), CONTEXT)
