"""Placing one order over gRPC, with real users and inventory, on a real PostgreSQL."""

import json
import uuid

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import literal_column, select, text

from order_service.tables import order_items, order_status_history, outbox
from order_service.tables import orders as orders_table
from proto import inventory_pb2
from proto import order_pb2 as pb
from proto.events import DATA_SCHEMA
from service_kit.context import CallContext, bound
from service_kit.errors import Code
from tests.service.orders.calls import (
    INTERNAL,
    PENDING,
    TRACE,
    UNKNOWN,
    cancel,
    events_of,
    get,
    is_unanswered,
    order_request,
    outbox_refusing,
    place,
    refuses,
    settle,
    settlement,
    stocked,
)
from tests.support.services import Inventory, Orders, Users, ask


async def test_a_new_order_is_pending_and_returned_as_it_is_stored(
    orders: Orders, inventory: Inventory, customer: int, tea: inventory_pb2.Product
) -> None:
    cup = await stocked(inventory, 5, 1999, "Cup")
    order = await place(orders, customer, (tea.id, 3), (cup.id, 1))
    assert uuid.UUID(order.id).version == 7
    assert (order.user_id, order.status) == (customer, PENDING)
    assert list(order.items) == [
        pb.OrderItem(product_id=tea.id, name="Tea", quantity=3, unit_price_cents=250),
        pb.OrderItem(product_id=cup.id, name="Cup", quantity=1, unit_price_cents=1999),
    ]
    assert order.total_cents == 3 * 250 + 1999
    assert order.create_time == order.update_time
    found = await get(orders, order.id, customer)
    assert list(found.history) == [pb.StatusChange(status=PENDING, time=order.create_time)]
    del found.history[:]
    assert found == order


async def test_an_order_takes_no_stock_until_its_event_is_handled(
    orders: Orders, inventory: Inventory, customer: int, tea: inventory_pb2.Product
) -> None:
    await place(orders, customer, (tea.id, 3))
    request = inventory_pb2.GetProductRequest(product_id=tea.id)
    assert (await ask(inventory.stub.GetProduct, request)).stock == tea.stock


async def test_an_order_its_items_history_and_event_are_written_in_one_transaction(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 3))
    tables = (orders_table, order_items, order_status_history, outbox)
    async with orders.engine.connect() as connection:
        transactions = [
            await connection.scalar(
                select(literal_column("xmin::text"))
                .select_from(table)
                .where((table.c.id if table is orders_table else table.c.order_id) == order.id)
            )
            for table in tables
        ]
    assert len(set(transactions)) == 1
    assert transactions[0]


async def test_no_order_is_stored_without_its_event(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    async with outbox_refusing(orders, "order.created"), refuses(orders, *INTERNAL):
        await place(orders, customer, (tea.id, 1))


async def test_no_order_changes_its_status_without_its_event(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    async with outbox_refusing(orders, "order.cancelled"), refuses(orders, *INTERNAL):
        await cancel(orders, order.id)
    async with outbox_refusing(orders, "order.confirmed"), refuses(orders, *INTERNAL):
        await settle(orders, settlement(order.id))
    assert (await get(orders, order.id)).status == PENDING


async def test_the_event_of_a_new_order_is_a_readable_cloud_event(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 3))
    (event,) = await events_of(orders, order.id)
    event_body = json.loads(event.body)
    assert event_body.pop("time").startswith("20")
    assert event_body == {
        "specversion": "1.0",
        "id": str(event.id),
        "source": "/order-service",
        "type": "order.created",
        "subject": order.id,
        "datacontenttype": "application/json",
        "dataschema": DATA_SCHEMA,
        "data": {
            "order_id": order.id,
            "user_id": customer,
            "status": "PENDING",
            "total_cents": 750,
            "items": [
                {"product_id": tea.id, "name": "Tea", "quantity": 3, "unit_price_cents": 250}
            ],
        },
    }
    assert (event.type, event.sent_at, event.attempts) == ("order.created", None, 0)
    assert await is_unanswered(orders, order.id)


async def test_an_event_keeps_the_context_of_its_call(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    request = order_request(customer, (tea.id, 1))
    with bound(CallContext("by-metadata", TRACE)):
        by_metadata = await ask(orders.stub.CreateOrder, request)
        request.context.request_id = "in-the-request"
        in_the_request = await ask(orders.stub.CreateOrder, request)
    (event,) = await events_of(orders, by_metadata.id)
    assert (event.request_id, event.traceparent) == ("by-metadata", TRACE)
    (event,) = await events_of(orders, in_the_request.id)
    assert (event.request_id, event.traceparent) == ("in-the-request", "")


async def test_quantities_of_a_repeated_product_are_summed(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2), (tea.id, 3))
    assert [(item.product_id, item.quantity) for item in order.items] == [(tea.id, 5)]
    assert order.total_cents == 5 * 250


async def test_an_order_keeps_the_name_and_price_at_the_time_of_ordering(
    orders: Orders, inventory: Inventory, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    dearer = inventory_pb2.Product(id=tea.id, name="Fine tea", price_cents=999)
    mask = FieldMask(paths=["name", "price_cents"])
    request = inventory_pb2.UpdateProductRequest(product=dearer, update_mask=mask)
    await ask(inventory.stub.UpdateProduct, request)
    found = await get(orders, order.id)
    assert list(found.items) == list(order.items)
    assert found.total_cents == 500
    assert (await place(orders, customer, (tea.id, 2))).total_cents == 2 * 999


async def test_an_order_at_the_current_price_is_accepted(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    request = order_request(customer, (tea.id, 2))
    request.items[0].unit_price_cents = 250
    assert (await ask(orders.stub.CreateOrder, request)).total_cents == 500


@pytest.mark.parametrize("price", [0, 249, -1])
async def test_an_order_at_another_price_is_refused_with_the_current_price(
    orders: Orders, customer: int, tea: inventory_pb2.Product, price: int
) -> None:
    request = order_request(customer, (tea.id, 2))
    request.items[0].unit_price_cents = price
    async with refuses(orders, Code.FAILED_PRECONDITION, "PRICE_CHANGED") as refusal:
        await ask(orders.stub.CreateOrder, request)
    assert refusal.value.metadata == {"product_id": str(tea.id), "unit_price_cents": "250"}


async def test_an_order_for_more_than_the_stock_is_refused_with_the_stock(
    orders: Orders, inventory: Inventory, customer: int, tea: inventory_pb2.Product
) -> None:
    scarce = await stocked(inventory, 4)
    async with refuses(orders, Code.FAILED_PRECONDITION, "INSUFFICIENT_STOCK") as refusal:
        await place(orders, customer, (tea.id, 1), (scarce.id, 3), (scarce.id, 2))
    assert refusal.value.metadata == {
        "product_id": str(scarce.id),
        "requested": "5",
        "available": "4",
    }


async def test_an_order_for_an_unknown_product_is_refused(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT") as refusal:
        await place(orders, customer, (tea.id, 1), (UNKNOWN, 1))
    assert refusal.value.metadata == {"product_id": str(UNKNOWN)}


@pytest.mark.parametrize("user_id", [0, -1, UNKNOWN])
async def test_an_unknown_user_may_not_place_orders(
    orders: Orders, tea: inventory_pb2.Product, user_id: int
) -> None:
    async with refuses(orders, Code.PERMISSION_DENIED, "USER_INACTIVE"):
        await place(orders, user_id, (tea.id, 1))


async def test_an_inactive_user_may_not_place_orders(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    statement = text("UPDATE users SET active = false WHERE id = :id")
    async with users.engine.begin() as connection:
        await connection.execute(statement, {"id": customer})
    async with refuses(orders, Code.PERMISSION_DENIED, "USER_INACTIVE"):
        await place(orders, customer, (tea.id, 1))


@pytest.mark.parametrize(
    ("quantities", "key", "reason"),
    [
        ([], "", "INVALID_ITEMS"),
        ([1] * 101, "", "INVALID_ITEMS"),
        ([0], "", "INVALID_QUANTITY"),
        ([-1], "", "INVALID_QUANTITY"),
        ([1_000_001], "", "INVALID_QUANTITY"),
        ([1_000_000, 1], "", "INVALID_QUANTITY"),
        ([1], "k" * 256, "INVALID_IDEMPOTENCY_KEY"),
        ([1], "a\0b", "INVALID_IDEMPOTENCY_KEY"),
    ],
)
async def test_a_request_that_breaks_a_rule_is_refused(
    orders: Orders,
    customer: int,
    tea: inventory_pb2.Product,
    *,
    quantities: list[int],
    key: str,
    reason: str,
) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, reason):
        await place(orders, customer, *((tea.id, quantity) for quantity in quantities), key=key)


async def test_100_items_and_a_million_units_of_one_product_are_accepted(
    orders: Orders, inventory: Inventory, customer: int
) -> None:
    grain = await stocked(inventory, 1_000_000, 1)
    order = await place(orders, customer, *[(grain.id, 10_000)] * 100, key="k" * 255)
    assert (order.items[0].quantity, order.total_cents) == (1_000_000, 1_000_000)
