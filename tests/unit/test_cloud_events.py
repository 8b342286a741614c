"""Reading order events, and that what the orders write is what the consumer reads."""

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_service.cloud_events import read_event
from consumer_service.models import Kind, OrderEvent, PoisonError
from order_service.domain import Order, OrderItem, OrderStatus
from order_service.outbox.events import order_event
from proto.events import DATA_SCHEMA, EVENT_TYPES, INVENTORY_EVENT_TYPES
from proto.limits import MAX_ORDER_ITEMS, MAX_QUANTITY
from proto.shortage import Shortage
from service_kit.context import CallContext

NOW = dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)
ORDER_ID = uuid.UUID("019abcde-0000-7000-8000-000000000001")
CALLER = CallContext("request-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")

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
    """A readable `order.created`, with some attributes changed; None leaves one out."""
    whole = {
        "specversion": "1.0",
        "id": "1",
        "source": "/order-service",
        "type": "order.created",
        "subject": str(ORDER_ID),
        "dataschema": DATA_SCHEMA,
        "data": {"order_id": str(ORDER_ID), "items": [{"product_id": 1, "quantity": 2}]},
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


def body(**changes: Any) -> bytes:
    return json.dumps(envelope(**changes)).encode()


def data(**changes: Any) -> dict[str, Any]:
    return {**envelope()["data"], **changes}


@given(orders)
def test_what_the_orders_write_is_what_the_consumer_reads(order: Order) -> None:
    event = order_event(order, CallContext(), NOW)
    kind = Kind.DEDUCT if order.status is OrderStatus.PENDING else Kind.RESTORE
    quantities = {item.product_id: item.quantity for item in order.items}
    assert read_event(event.body, CALLER) == OrderEvent(order.id, kind, quantities, CALLER)


@pytest.mark.parametrize(
    ("status", "event_type"),
    list(zip(OrderStatus, EVENT_TYPES, strict=True)),
    ids=list(OrderStatus),
)
def test_an_event_is_a_cloud_event_that_a_person_can_read(
    status: OrderStatus, event_type: str
) -> None:
    shortages = [Shortage(7, 3, 1)] if status is OrderStatus.REJECTED else []
    order = Order(ORDER_ID, 5, status, [OrderItem(7, "Tea", 3, 250)], 750, NOW, NOW, shortages)
    event = order_event(order, CallContext("request-1"), NOW)
    told = json.loads(event.body)
    assert (event.type, event.order_id, event.context) == (
        event_type,
        ORDER_ID,
        CallContext("request-1"),
    )
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
    assert told == {
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
    assert len(read_event(body(data=data(items=items)), CALLER).items) == MAX_ORDER_ITEMS


def test_a_product_named_twice_is_added_up() -> None:
    twice = [{"product_id": 1, "quantity": 2}, {"product_id": 1, "quantity": 3}]
    event = read_event(body(data=data(items=twice)), CALLER)
    assert event.items == {1: 5}


def test_attributes_and_fields_nobody_knows_are_passed_over() -> None:
    event = read_event(body(extension="x", data=data(colour="red")), CALLER)
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
        (
            body(data=data(items=[{"product_id": 1, "quantity": 1}] * (MAX_ORDER_ITEMS + 1))),
            "unreadable",
        ),
        (body(data=data(items=[{"product_id": 0, "quantity": 1}])), "unreadable"),
        (body(data=data(items=[{"product_id": 2**63, "quantity": 1}])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": 0}])), "unreadable"),
        (body(data=data(items=[{"product_id": 1, "quantity": -1}])), "unreadable"),
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
def test_what_can_never_be_handled_says_why(message: bytes, expected: str) -> None:
    with pytest.raises(PoisonError) as poison:
        read_event(message, CALLER)
    assert poison.value.reason == expected


@pytest.mark.parametrize("nested", [b"[" * 200_000, b'{"a":' * 200_000])
def test_nesting_without_end_is_unreadable(nested: bytes) -> None:
    message = body(data="HERE").replace(b'"HERE"', nested)
    with pytest.raises(PoisonError) as poison:
        read_event(message, CALLER)
    assert poison.value.reason == "unreadable"


@given(st.binary() | st.text().map(str.encode))
def test_no_message_raises_anything_but_poison(message: bytes) -> None:
    with pytest.raises(PoisonError):
        read_event(message, CALLER)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.sampled_from(INVENTORY_EVENT_TYPES), json_values)
def test_no_data_raises_anything_but_poison(event_type: str, value: Any) -> None:
    with pytest.raises(PoisonError):
        read_event(body(type=event_type, data=value), CALLER)
