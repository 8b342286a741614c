"""Placing many orders in one call."""

import asyncio
import datetime as dt
import random
import uuid
from contextlib import (
    suppress,
)

from google.rpc import status_pb2
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from order_service.tables import orders as orders_table
from proto import inventory_pb2
from proto import order_pb2 as pb
from service_kit.errors import Code, ServiceError
from service_kit.grpc.status import from_status
from tests.service.orders.calls import (
    UNKNOWN,
    order_request,
    place,
    place_all,
    refuses,
    register,
    stocked,
    stored_counts,
)
from tests.support.services import Inventory, Orders, Users, ask
from tests.support.waiting import eventually


async def test_each_order_of_a_batch_has_its_own_result(
    orders: Orders, inventory: Inventory, users: Users, tea: inventory_pb2.Product
) -> None:
    one, other, scarce = await register(users), await register(users), await stocked(inventory, 1)
    results = await place_all(
        orders,
        order_request(one, (tea.id, 1)),
        order_request(one),
        order_request(UNKNOWN, (tea.id, 1)),
        order_request(other, (scarce.id, 2)),
        order_request(other, (UNKNOWN, 1)),
        order_request(other, (tea.id, 2)),
    )
    assert [
        each.reason if isinstance(each, ServiceError) else (each.user_id, each.total_cents)
        for each in results
    ] == [
        (one, 250),
        "INVALID_ITEMS",
        "USER_INACTIVE",
        "INSUFFICIENT_STOCK",
        "UNKNOWN_PRODUCT",
        (other, 500),
    ]
    assert await stored_counts(orders, one) == await stored_counts(orders, other) == (1, 1)


async def test_the_errors_in_a_batch_have_code_reason_and_metadata(
    orders: Orders, customer: int
) -> None:
    request = pb.BatchCreateOrdersRequest(requests=[order_request(customer, (UNKNOWN, 1))])
    (result,) = (await ask(orders.stub.BatchCreateOrders, request)).results
    assert isinstance(result.error, status_pb2.Status)
    refusal = from_status(result.error)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT")
    assert refusal.metadata == {"product_id": str(UNKNOWN)}


async def test_a_key_that_is_repeated_in_a_batch_makes_one_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    one, same, reused = await place_all(
        orders,
        order_request(customer, (tea.id, 1), key="a"),
        order_request(customer, (tea.id, 1), key="a"),
        order_request(customer, (tea.id, 9), key="a"),
    )
    assert isinstance(one, pb.Order)
    assert same == one
    assert isinstance(reused, ServiceError)
    assert reused.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await stored_counts(orders, customer) == (1, 1)


async def test_a_batch_has_at_most_1000_orders(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    requests = [order_request(customer, (tea.id, 1))] * 1001
    async with refuses(orders, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await place_all(orders, *requests)
    results = await place_all(orders, *requests[:-1])
    assert len({order.id for order in results if isinstance(order, pb.Order)}) == 1000


async def test_an_empty_batch_has_no_results(orders: Orders) -> None:
    assert await place_all(orders) == []


async def test_large_orders_in_one_batch_do_not_fail_each_other(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    # More different products than inventory checks in one call.
    large = [
        order_request(customer, *((UNKNOWN + 100 * order + item, 1) for item in range(100)))
        for order in range(101)
    ]
    *others, small = await place_all(orders, *large, order_request(customer, (tea.id, 1)))
    assert isinstance(small, pb.Order)
    assert {getattr(other, "reason", other) for other in others} == {"UNKNOWN_PRODUCT"}


async def test_batches_with_the_same_keys_in_any_order_never_deadlock(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    requests = [order_request(customer, (tea.id, 1), key=f"k{number}") for number in range(60)]
    results = await asyncio.gather(
        *(place_all(orders, *random.sample(requests, len(requests))) for _ in range(16))
    )
    found = {getattr(order, "id", order) for result in results for order in result}
    assert len(found) == 60
    assert await stored_counts(orders, customer) == (60, 60)


async def hold_key(connection: AsyncConnection, user_id: int, key: str) -> None:
    """Store an order under a key, as another order service would, without committing it yet."""
    values = {"id": uuid.uuid4(), "user_id": user_id, "idempotency_key": key, "total_cents": 0}
    now = dt.datetime.now(dt.UTC)
    fixed = {"status": "PENDING", "fingerprint": b"", "created_at": now, "updated_at": now}
    await connection.execute(insert(orders_table).values(**values, **fixed))


async def waits_for_a_lock(orders: Orders) -> bool:
    """Whether some statement in the database of the orders waits for another's transaction."""
    statement = text("""
        SELECT count(*) > 0 FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
    """)
    async with orders.engine.connect() as connection:
        return bool(await connection.scalar(statement))


async def test_a_batch_that_waits_for_a_key_holds_no_larger_key(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    requests = [order_request(customer, (tea.id, 1), key=key) for key in ("c", "b", "a")]
    async with orders.engine.connect() as other:
        await hold_key(other, customer, "b")
        batch = asyncio.create_task(place_all(orders, *requests))
        await eventually(lambda: waits_for_a_lock(orders))
        async with asyncio.timeout(5):
            largest = await place(orders, customer, (tea.id, 1), key="c")
        await other.rollback()
    assert largest in await batch
    assert await stored_counts(orders, customer) == (3, 3)


async def test_a_batch_that_lost_a_deadlock_is_retried(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    requests = [order_request(customer, (tea.id, 1), key=key) for key in ("a", "b")]
    async with orders.engine.connect() as other:
        await hold_key(other, customer, "b")
        batch = asyncio.create_task(place_all(orders, *requests))
        await eventually(lambda: waits_for_a_lock(orders))
        # The database ends one of the two that wait for each other; often it is the batch.
        with suppress(DBAPIError):
            await hold_key(other, customer, "a")
        await other.rollback()
    assert [type(each) for each in await batch] == [pb.Order, pb.Order]
    assert await stored_counts(orders, customer) == (2, 2)
