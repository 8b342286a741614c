"""The order service over gRPC, beside real users and inventory, against a real PostgreSQL."""

import asyncio
import datetime as dt
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import status_pb2
from sqlalchemy import Row, insert, literal_column, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from order_service.models import (
    metadata,
    order_items,
    order_status_history,
    outbox,
)
from order_service.models import orders as orders_table
from proto import inventory_pb2, user_pb2
from proto import order_pb2 as pb
from proto.events import DATA_SCHEMA
from service_kit.context import CallContext, bound
from service_kit.errors import Code, DeadlineExceeded, ServiceError, Unavailable
from service_kit.grpc.client import call
from service_kit.grpc.status import from_status
from service_kit.postgres.engine import open_engine
from tests.support.database import (
    contents,
    differences,
    migrated_by_replicas,
    refused,
    schema,
)
from tests.support.infrastructure import Infrastructure
from tests.support.probes import described, health, reflected
from tests.support.services import Inventory, Orders, Users, ask, orders_running
from tests.support.tcp_proxy import TcpProxy, proxied
from tests.support.waiting import eventually, free_port
from user_service.tables import users as users_table

NAME = "ecommerce.order.v1.OrderService"
UNKNOWN = 2**40
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"

INTERNAL = (Code.INTERNAL, "INTERNAL")
HANGS = (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
AWAY = (Code.UNAVAILABLE, "UNAVAILABLE")

PENDING = pb.ORDER_STATUS_PENDING
CONFIRMED = pb.ORDER_STATUS_CONFIRMED
REJECTED = pb.ORDER_STATUS_REJECTED
CANCELLED = pb.ORDER_STATUS_CANCELLED

Outcome = pb.SettlementOutcome

_emails = count()


@pytest_asyncio.fixture
async def customer(users: Users) -> int:
    """The id of a new customer."""
    return await register(users)


@pytest_asyncio.fixture
async def tea(inventory: Inventory) -> inventory_pb2.Product:
    """A product at 2.50 of which there is plenty."""
    return await stocked(inventory)


async def register(users: Users) -> int:
    request = user_pb2.RegisterUserRequest(
        email=f"customer{next(_emails)}@example.org", password="correct horse", name="Ada"
    )
    return (await ask(users.stub.RegisterUser, request)).id


async def stocked(
    inventory: Inventory, stock: int = 1000, price_cents: int = 250, name: str = "Tea"
) -> inventory_pb2.Product:
    product = inventory_pb2.Product(name=name, price_cents=price_cents, stock=stock)
    request = inventory_pb2.CreateProductRequest(product=product)
    return await ask(inventory.stub.CreateProduct, request)


def refuses(
    orders: Orders, code: Code, reason: str
) -> AbstractAsyncContextManager[pytest.ExceptionInfo[ServiceError]]:
    return refused(orders.engine, metadata, code, reason)


def wanted(user_id: int, *items: tuple[int, int], key: str = "") -> pb.CreateOrderRequest:
    """A request for so many of each product."""
    return pb.CreateOrderRequest(
        user_id=user_id,
        items=[pb.NewOrderItem(product_id=product, quantity=number) for product, number in items],
        idempotency_key=key,
    )


async def place(orders: Orders, user_id: int, *items: tuple[int, int], key: str = "") -> pb.Order:
    return await ask(orders.stub.CreateOrder, wanted(user_id, *items, key=key))


async def place_all(
    orders: Orders, *requests: pb.CreateOrderRequest
) -> list[pb.Order | ServiceError]:
    answer = await ask(
        orders.stub.BatchCreateOrders, pb.BatchCreateOrdersRequest(requests=requests)
    )
    return [
        each.order if each.HasField("order") else from_status(each.error) for each in answer.results
    ]


async def get(orders: Orders, order_id: str, user_id: int = 0, wait: float = 0.0) -> pb.Order:
    duration = Duration()
    duration.FromNanoseconds(int(wait * 1e9))
    request = pb.GetOrderRequest(order_id=order_id, user_id=user_id, wait=duration)
    return await ask(orders.stub.GetOrder, request)


async def cancel(orders: Orders, order_id: str, user_id: int = 0) -> pb.Order:
    request = pb.CancelOrderRequest(order_id=order_id, user_id=user_id)
    return await ask(orders.stub.CancelOrder, request)


def settlement(
    order_id: str,
    outcome: "Outcome.ValueType" = pb.SETTLEMENT_OUTCOME_CONFIRMED,
    shortages: Sequence[pb.Shortage] = (),
) -> pb.Settlement:
    context = pb.CallContext(request_id="settling", traceparent=TRACE)
    return pb.Settlement(order_id=order_id, outcome=outcome, shortages=shortages, context=context)


def rejection(order_id: str, product_id: int = 1) -> pb.Settlement:
    shortage = pb.Shortage(product_id=product_id, requested=3, available=2)
    return settlement(order_id, pb.SETTLEMENT_OUTCOME_REJECTED, [shortage])


def release(order_id: str) -> pb.Settlement:
    return settlement(order_id, pb.SETTLEMENT_OUTCOME_RELEASED)


async def settle(orders: Orders, *settlements: pb.Settlement) -> list["pb.OrderStatus.ValueType"]:
    request = pb.SettleOrdersRequest(settlements=settlements)
    answer = await ask(orders.stub.SettleOrders, request)
    assert [each.order_id for each in answer.results] == [each.order_id for each in settlements]
    return [each.status for each in answer.results]


async def events_of(orders: Orders, order_id: str) -> list[Row[Any]]:
    """The outbox rows of an order, oldest first."""
    statement = select(outbox).where(outbox.c.order_id == order_id).order_by(outbox.c.id)
    async with orders.engine.connect() as connection:
        return list(await connection.execute(statement))


async def types_of(orders: Orders, order_id: str) -> list[str]:
    return [event.type for event in await events_of(orders, order_id)]


async def is_outstanding(orders: Orders, order_id: str) -> bool:
    """Whether inventory's answer is still waited for."""
    statement = select(orders_table.c.next_offer_at).where(orders_table.c.id == order_id)
    async with orders.engine.connect() as connection:
        return await connection.scalar(statement) is not None


# Placing an order


async def test_a_new_order_is_pending_and_answered_as_it_is_stored(
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


@asynccontextmanager
async def outbox_refusing(orders: Orders, type_: str) -> AsyncIterator[None]:
    """Lets the database refuse events of this type inside the block."""
    async with orders.engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE outbox ADD CONSTRAINT no CHECK (type <> '{type_}') NOT VALID")
        )
    try:
        yield
    finally:
        async with orders.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE outbox DROP CONSTRAINT no"))


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
    told = json.loads(event.body)
    assert told.pop("time").startswith("20")
    assert told == {
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
    assert await is_outstanding(orders, order.id)


async def test_an_event_keeps_who_asked(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    request = wanted(customer, (tea.id, 1))
    with bound(CallContext("by-metadata", TRACE)):
        by_metadata = await ask(orders.stub.CreateOrder, request)
        request.context.request_id = "in-the-request"
        in_the_request = await ask(orders.stub.CreateOrder, request)
    (event,) = await events_of(orders, by_metadata.id)
    assert (event.request_id, event.traceparent) == ("by-metadata", TRACE)
    (event,) = await events_of(orders, in_the_request.id)
    assert (event.request_id, event.traceparent) == ("in-the-request", "")


async def test_products_named_twice_are_added_up(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2), (tea.id, 3))
    assert [(item.product_id, item.quantity) for item in order.items] == [(tea.id, 5)]
    assert order.total_cents == 5 * 250


async def test_an_order_keeps_name_and_price_of_when_it_was_placed(
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


async def test_a_client_that_knows_the_price_is_served(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    request = wanted(customer, (tea.id, 2))
    request.items[0].unit_price_cents = 250
    assert (await ask(orders.stub.CreateOrder, request)).total_cents == 500


@pytest.mark.parametrize("believed", [0, 249, -1])
async def test_a_client_that_believes_in_another_price_is_told_the_price(
    orders: Orders, customer: int, tea: inventory_pb2.Product, believed: int
) -> None:
    request = wanted(customer, (tea.id, 2))
    request.items[0].unit_price_cents = believed
    async with refuses(orders, Code.FAILED_PRECONDITION, "PRICE_CHANGED") as refusal:
        await ask(orders.stub.CreateOrder, request)
    assert refusal.value.metadata == {"product_id": str(tea.id), "unit_price_cents": "250"}


async def test_more_than_there_is_is_refused_and_told(
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


async def test_an_unknown_product_is_refused(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT") as refusal:
        await place(orders, customer, (tea.id, 1), (UNKNOWN, 1))
    assert refusal.value.metadata == {"product_id": str(UNKNOWN)}


@pytest.mark.parametrize("user_id", [0, -1, UNKNOWN])
async def test_an_unknown_user_may_not_order(
    orders: Orders, tea: inventory_pb2.Product, user_id: int
) -> None:
    async with refuses(orders, Code.PERMISSION_DENIED, "USER_INACTIVE"):
        await place(orders, user_id, (tea.id, 1))


async def test_a_user_whose_account_is_closed_may_not_order(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    closing = update(users_table).where(users_table.c.id == customer).values(active=False)
    async with users.engine.begin() as connection:
        await connection.execute(closing)
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


async def test_a_hundred_items_and_a_million_of_one_product_are_accepted(
    orders: Orders, inventory: Inventory, customer: int
) -> None:
    grain = await stocked(inventory, 1_000_000, 1)
    order = await place(orders, customer, *[(grain.id, 10_000)] * 100, key="k" * 255)
    assert (order.items[0].quantity, order.total_cents) == (1_000_000, 1_000_000)


# Idempotency


async def test_the_same_request_with_the_same_key_gives_the_same_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    first = await place(orders, customer, (tea.id, 2), (tea.id, 1), key="a")
    before = await contents(orders.engine, metadata)
    assert await place(orders, customer, (tea.id, 2), (tea.id, 1), key="a") == first
    assert await place(orders, customer, (tea.id, 3), key="a") == first
    assert await contents(orders.engine, metadata) == before


async def test_a_repeated_request_shows_how_its_order_is_now(
    orders: Orders, inventory: Inventory, customer: int
) -> None:
    scarce = await stocked(inventory, 1)
    order = await place(orders, customer, (scarce.id, 1), key="a")
    await settle(orders, settlement(order.id))
    adjustment = inventory_pb2.AdjustStockRequest(product_id=scarce.id, delta=-1, reason="sold")
    await ask(inventory.stub.AdjustStock, adjustment)
    again = await place(orders, customer, (scarce.id, 1), key="a")
    assert (again.id, again.status) == (order.id, CONFIRMED)


async def test_the_same_key_with_another_request_is_refused(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    await place(orders, customer, (tea.id, 1), key="a")
    async with refuses(orders, Code.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED"):
        await place(orders, customer, (tea.id, 2), key="a")
    priced = wanted(customer, (tea.id, 1), key="a")
    priced.items[0].unit_price_cents = 250
    async with refuses(orders, Code.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED"):
        await ask(orders.stub.CreateOrder, priced)


async def test_a_key_that_was_refused_can_be_used_again(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT"):
        await place(orders, customer, (UNKNOWN, 1), key="a")
    assert (await place(orders, customer, (tea.id, 1), key="a")).status == PENDING


async def test_keys_of_different_users_are_different_keys(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    other = await register(users)
    one = await place(orders, customer, (tea.id, 1), key="a")
    assert (await place(orders, other, (tea.id, 1), key="a")).id != one.id


async def test_without_a_key_every_request_is_a_new_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    one = await place(orders, customer, (tea.id, 1))
    assert (await place(orders, customer, (tea.id, 1))).id != one.id


async def stored_of(orders: Orders, user_id: int) -> tuple[int, int]:
    """How many orders a user has, and how many events they have."""
    statement = text("""
        SELECT count(DISTINCT orders.id), count(outbox.id)
        FROM orders LEFT JOIN outbox ON outbox.order_id = orders.id WHERE user_id = :user_id
    """)
    async with orders.engine.connect() as connection:
        found = (await connection.execute(statement, {"user_id": user_id})).one()
    return found[0], found[1]


async def test_many_requests_with_one_key_at_once_make_one_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    answers = await asyncio.gather(
        *(place(orders, customer, (tea.id, 1), key="a") for _ in range(60))
    )
    assert all(answer == answers[0] for answer in answers)
    assert await stored_of(orders, customer) == (1, 1)


async def test_of_different_requests_with_one_key_at_once_one_wins(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    answers = await asyncio.gather(
        *(place(orders, customer, (tea.id, 1 + number % 2), key="a") for number in range(40)),
        return_exceptions=True,
    )
    winners = [answer for answer in answers if isinstance(answer, pb.Order)]
    losers = [getattr(answer, "reason", answer) for answer in answers if answer not in winners]
    assert len({winner.id for winner in winners}) == 1
    assert losers == ["IDEMPOTENCY_KEY_REUSED"] * 20
    assert await stored_of(orders, customer) == (1, 1)


# Many orders in one call


async def test_each_order_of_a_batch_is_answered_on_its_own(
    orders: Orders, inventory: Inventory, users: Users, tea: inventory_pb2.Product
) -> None:
    one, other, scarce = await register(users), await register(users), await stocked(inventory, 1)
    results = await place_all(
        orders,
        wanted(one, (tea.id, 1)),
        wanted(one),
        wanted(UNKNOWN, (tea.id, 1)),
        wanted(other, (scarce.id, 2)),
        wanted(other, (UNKNOWN, 1)),
        wanted(other, (tea.id, 2)),
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
    assert await stored_of(orders, one) == await stored_of(orders, other) == (1, 1)


async def test_the_refusals_in_a_batch_carry_code_reason_and_metadata(
    orders: Orders, customer: int
) -> None:
    request = pb.BatchCreateOrdersRequest(requests=[wanted(customer, (UNKNOWN, 1))])
    (result,) = (await ask(orders.stub.BatchCreateOrders, request)).results
    assert isinstance(result.error, status_pb2.Status)
    refusal = from_status(result.error)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "UNKNOWN_PRODUCT")
    assert refusal.metadata == {"product_id": str(UNKNOWN)}


async def test_a_key_that_comes_twice_in_a_batch_makes_one_order(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    one, same, reused = await place_all(
        orders,
        wanted(customer, (tea.id, 1), key="a"),
        wanted(customer, (tea.id, 1), key="a"),
        wanted(customer, (tea.id, 9), key="a"),
    )
    assert isinstance(one, pb.Order)
    assert same == one
    assert isinstance(reused, ServiceError)
    assert reused.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await stored_of(orders, customer) == (1, 1)


async def test_a_batch_holds_a_thousand_orders_and_no_more(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    requests = [wanted(customer, (tea.id, 1))] * 1001
    async with refuses(orders, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await place_all(orders, *requests)
    results = await place_all(orders, *requests[:-1])
    assert len({order.id for order in results if isinstance(order, pb.Order)}) == 1000


async def test_an_empty_batch_is_answered_by_no_results(orders: Orders) -> None:
    assert await place_all(orders) == []


async def test_large_orders_in_one_batch_do_not_fail_one_another(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    # More different products than inventory checks in one call.
    large = [
        wanted(customer, *((UNKNOWN + 100 * order + item, 1) for item in range(100)))
        for order in range(101)
    ]
    *others, small = await place_all(orders, *large, wanted(customer, (tea.id, 1)))
    assert isinstance(small, pb.Order)
    assert {getattr(other, "reason", other) for other in others} == {"UNKNOWN_PRODUCT"}


async def test_batches_with_the_same_keys_in_any_order_never_deadlock(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    requests = [wanted(customer, (tea.id, 1), key=f"k{number}") for number in range(60)]
    answers = await asyncio.gather(
        *(place_all(orders, *random.sample(requests, len(requests))) for _ in range(16))
    )
    found = {getattr(order, "id", order) for answer in answers for order in answer}
    assert len(found) == 60
    assert await stored_of(orders, customer) == (60, 60)


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
    requests = [wanted(customer, (tea.id, 1), key=key) for key in ("c", "b", "a")]
    async with orders.engine.connect() as other:
        await hold_key(other, customer, "b")
        batch = asyncio.create_task(place_all(orders, *requests))
        await eventually(lambda: waits_for_a_lock(orders))
        async with asyncio.timeout(5):
            largest = await place(orders, customer, (tea.id, 1), key="c")
        await other.rollback()
    assert largest in await batch
    assert await stored_of(orders, customer) == (3, 3)


async def test_a_batch_that_lost_a_deadlock_is_tried_again(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    requests = [wanted(customer, (tea.id, 1), key=key) for key in ("a", "b")]
    async with orders.engine.connect() as other:
        await hold_key(other, customer, "b")
        batch = asyncio.create_task(place_all(orders, *requests))
        await eventually(lambda: waits_for_a_lock(orders))
        # The database ends one of the two that wait for each other; often it is the batch.
        with suppress(DBAPIError):
            await hold_key(other, customer, "a")
        await other.rollback()
    assert [type(each) for each in await batch] == [pb.Order, pb.Order]
    assert await stored_of(orders, customer) == (2, 2)


# Looking at an order


async def test_an_order_is_shown_to_its_owner_alone_unless_anyone_may_see_it(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    assert (await get(orders, order.id, customer)).id == order.id
    assert (await get(orders, order.id, 0)).id == order.id
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await get(orders, order.id, await register(users))


@pytest.mark.parametrize("order_id", [str(uuid.UUID(int=0)), "", "7", "a\0b"])
async def test_an_order_that_does_not_exist_is_not_found(orders: Orders, order_id: str) -> None:
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await get(orders, order_id)
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await cancel(orders, order_id)


async def waiting_for(orders: Orders, order_id: str) -> "asyncio.Task[pb.Order]":
    """Someone who waits up to half a minute for the order, and does so by now."""
    task = asyncio.create_task(get(orders, order_id, wait=30))
    done, _ = await asyncio.wait({task}, timeout=0.3)
    assert not done
    return task


async def test_whoever_waits_for_an_order_is_answered_as_soon_as_it_is_settled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    waiting = await waiting_for(orders, order.id)
    also = await waiting_for(orders, order.id)
    await settle(orders, settlement(order.id))
    async with asyncio.timeout(5):
        assert (await waiting).status == (await also).status == CONFIRMED


async def test_whoever_waits_for_an_order_is_answered_when_it_is_cancelled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    waiting = await waiting_for(orders, order.id)
    await cancel(orders, order.id)
    async with asyncio.timeout(5):
        assert (await waiting).status == CANCELLED


async def test_whoever_waits_sees_what_another_order_service_settled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    waiting = await waiting_for(orders, order.id)
    statement = update(orders_table).where(orders_table.c.id == order.id)
    async with orders.engine.begin() as connection:
        await connection.execute(statement.values(status="REJECTED"))
    async with asyncio.timeout(5):
        assert (await waiting).status == REJECTED


async def test_a_wait_that_is_over_shows_the_order_as_it_is(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    for seconds in (0.1, 0.0, -5.0):
        assert (await get(orders, order.id, wait=seconds)).status == PENDING


async def test_a_wait_of_any_length_is_understood(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 1))
    await settle(orders, settlement(order.id))
    for seconds in (2**62, 10**15, -(2**62)):
        request = pb.GetOrderRequest(order_id=order.id, wait=Duration(seconds=seconds))
        assert (await ask(orders.stub.GetOrder, request)).status == CONFIRMED


async def test_nobody_waits_for_another_ones_order(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    order, other = await place(orders, customer, (tea.id, 1)), await register(users)
    async with asyncio.timeout(5), refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await get(orders, order.id, other, wait=30)


# Listing orders


async def listed(
    orders: Orders, user_id: int = 0, page_size: int = 0, page_token: str = "", status: int = 0
) -> pb.ListOrdersResponse:
    request = pb.ListOrdersRequest(
        user_id=user_id,
        page_size=page_size,
        page_token=page_token,
        status=status,  # type: ignore[arg-type] # also numbers that are no status
    )
    return await ask(orders.stub.ListOrders, request)


async def test_pages_give_every_order_once_newest_first_however_deep(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    placed = [(await place(orders, customer, (tea.id, 1))).id for _ in range(23)]
    page = await listed(orders, customer, 4)
    found = list(page.orders)
    while page.next_page_token:
        assert len(page.orders) == 4
        # What is placed meanwhile stands before the first page and shifts nothing.
        await place(orders, customer, (tea.id, 1))
        page = await listed(orders, customer, 4, page.next_page_token)
        found += page.orders
    assert [order.id for order in found] == placed[::-1]


async def test_listed_orders_are_whole_but_for_their_history(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    page = await listed(orders, customer)
    assert list(page.orders) == [order]
    assert page.next_page_token == ""


async def test_a_page_has_20_orders_unless_asked_and_100_at_most(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    await place_all(orders, *[wanted(customer, (tea.id, 1))] * 103)
    assert len((await listed(orders, customer)).orders) == 20
    page = await listed(orders, customer, 1000)
    assert len(page.orders) == 100
    assert len((await listed(orders, customer, 100, page.next_page_token)).orders) == 3


async def test_orders_are_listed_by_status_and_by_user(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    pending, confirmed, rejected, cancelled = [
        (await place(orders, customer, (tea.id, 1))).id for _ in range(4)
    ]
    await settle(orders, settlement(confirmed), rejection(rejected))
    await cancel(orders, cancelled)
    other = await register(users)
    others = (await place(orders, other, (tea.id, 1))).id
    for status, expected in (
        (PENDING, pending),
        (CONFIRMED, confirmed),
        (REJECTED, rejected),
        (CANCELLED, cancelled),
    ):
        page = await listed(orders, customer, status=status)
        assert [(order.id, order.status) for order in page.orders] == [(expected, status)]
        everyone = await listed(orders, status=status, page_size=100)
        assert {order.status for order in everyone.orders} == {status}
        assert expected in {order.id for order in everyone.orders}
    assert len((await listed(orders, customer)).orders) == 4
    newest = [order.id for order in (await listed(orders)).orders][:2]
    assert newest == [others, cancelled]
    assert not (await listed(orders, UNKNOWN)).orders


@pytest.mark.parametrize("status", [5, 99, -1])
async def test_a_status_that_does_not_exist_is_refused(orders: Orders, status: int) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "INVALID_STATUS"):
        await listed(orders, status=status)


@pytest.mark.parametrize("token", ["!", "bm9uZQ", "MTI", "AAAA"])
async def test_a_page_token_that_was_not_given_out_is_refused(orders: Orders, token: str) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await listed(orders, page_token=token)


async def test_a_negative_page_size_is_refused(orders: Orders) -> None:
    async with refuses(orders, Code.INVALID_ARGUMENT, "INVALID_PAGE_SIZE"):
        await listed(orders, page_size=-1)


# Cancelling


@pytest.mark.parametrize("confirmed", [False, True])
async def test_a_pending_or_confirmed_order_can_be_cancelled(
    orders: Orders, customer: int, tea: inventory_pb2.Product, *, confirmed: bool
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    if confirmed:
        await settle(orders, settlement(order.id))
    with bound(CallContext("regret", TRACE)):
        cancelled = await cancel(orders, order.id, customer)
    assert cancelled.status == CANCELLED
    assert list(cancelled.items) == list(order.items)
    assert cancelled.update_time.ToNanoseconds() > order.update_time.ToNanoseconds()
    assert await get(orders, order.id) == cancelled
    way = [PENDING, CONFIRMED, CANCELLED] if confirmed else [PENDING, CANCELLED]
    assert [change.status for change in cancelled.history] == way
    event = (await events_of(orders, order.id))[-1]
    assert (event.type, event.request_id, event.traceparent) == ("order.cancelled", "regret", TRACE)
    told = json.loads(event.body)["data"]
    assert (told["status"], told["items"][0]["quantity"]) == ("CANCELLED", 2)
    assert await is_outstanding(orders, order.id)


async def test_cancelling_twice_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    first = await cancel(orders, order.id)
    before = await contents(orders.engine, metadata)
    assert await cancel(orders, order.id) == first
    assert await contents(orders.engine, metadata) == before


async def test_a_rejected_order_cannot_be_cancelled(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    await settle(orders, rejection(order.id))
    async with refuses(orders, Code.FAILED_PRECONDITION, "NOT_CANCELLABLE") as refusal:
        await cancel(orders, order.id)
    assert refusal.value.metadata == {"status": "REJECTED"}


async def test_nobody_cancels_another_ones_order(
    orders: Orders, users: Users, customer: int, tea: inventory_pb2.Product
) -> None:
    order, other = await place(orders, customer, (tea.id, 2)), await register(users)
    async with refuses(orders, Code.NOT_FOUND, "ORDER_NOT_FOUND"):
        await cancel(orders, order.id, other)


async def test_many_cancellations_at_once_cancel_once(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    answers = await asyncio.gather(*(cancel(orders, order.id) for _ in range(30)))
    assert all(answer == answers[0] for answer in answers)
    assert await types_of(orders, order.id) == ["order.created", "order.cancelled"]


async def test_a_cancellation_racing_with_its_settlement_wins_either_way(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await place_all(orders, *[wanted(customer, (tea.id, 1))] * 30)
    placed = [order.id for order in results if isinstance(order, pb.Order)]
    race = [cancel(orders, order) for order in placed]
    await asyncio.gather(*race, *(settle(orders, settlement(order)) for order in placed))
    for order_id in placed:
        order = await get(orders, order_id)
        way = [change.status for change in order.history]
        assert way in ([PENDING, CANCELLED], [PENDING, CONFIRMED, CANCELLED])
        assert order.status == CANCELLED
        types = ["order.created", "order.confirmed", "order.cancelled"]
        assert sorted(await types_of(orders, order_id)) == sorted(
            types if CONFIRMED in way else types[::2]
        )


# Settling


async def test_a_confirmed_order_tells_so(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 2))
    assert await settle(orders, settlement(order.id)) == [CONFIRMED]
    found = await get(orders, order.id)
    assert (found.status, list(found.shortages)) == (CONFIRMED, [])
    assert [change.status for change in found.history] == [PENDING, CONFIRMED]
    assert found.update_time == found.history[1].time
    event = (await events_of(orders, order.id))[-1]
    assert (event.type, event.request_id, event.traceparent) == (
        "order.confirmed",
        "settling",
        TRACE,
    )
    assert json.loads(event.body)["data"]["status"] == "CONFIRMED"
    assert not await is_outstanding(orders, order.id)


async def test_a_rejected_order_tells_what_was_short(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = await place(orders, customer, (tea.id, 3))
    assert await settle(orders, rejection(order.id, tea.id)) == [REJECTED]
    found = await get(orders, order.id)
    shortage = pb.Shortage(product_id=tea.id, requested=3, available=2)
    assert (found.status, list(found.shortages)) == (REJECTED, [shortage])
    event = (await events_of(orders, order.id))[-1]
    assert event.type == "order.rejected"
    assert json.loads(event.body)["data"]["shortages"] == [
        {"product_id": tea.id, "requested": 3, "available": 2}
    ]
    assert not await is_outstanding(orders, order.id)


async def test_settling_again_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    confirmed = (await place(orders, customer, (tea.id, 1))).id
    rejected = (await place(orders, customer, (tea.id, 1))).id
    settlements = [settlement(confirmed), rejection(rejected)]
    assert await settle(orders, *settlements) == [CONFIRMED, REJECTED]
    before = await contents(orders.engine, metadata)
    assert await settle(orders, *settlements) == [CONFIRMED, REJECTED]
    assert await settle(orders, rejection(confirmed), settlement(rejected)) == [CONFIRMED, REJECTED]
    assert await settle(orders, release(confirmed), release(rejected)) == [CONFIRMED, REJECTED]
    assert await contents(orders.engine, metadata) == before


async def test_of_settlements_of_one_order_in_one_batch_the_first_counts(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    batch = [settlement(order), settlement(order), rejection(order), release(order)]
    assert await settle(orders, *batch) == [CONFIRMED] * 4
    assert await types_of(orders, order) == ["order.created", "order.confirmed"]
    assert not (await get(orders, order)).shortages


async def test_an_unknown_order_is_passed_over_and_told(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order, unknown = (await place(orders, customer, (tea.id, 1))).id, str(uuid.uuid4())
    answer = await settle(orders, settlement(unknown), settlement(order), release(unknown))
    assert answer == [pb.ORDER_STATUS_UNSPECIFIED, CONFIRMED, pb.ORDER_STATUS_UNSPECIFIED]
    assert await events_of(orders, unknown) == []


async def test_a_cancelled_order_stays_so_whatever_inventory_decided(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    await cancel(orders, order)
    before = await contents(orders.engine, metadata)
    assert await settle(orders, settlement(order)) == [CANCELLED]
    assert await settle(orders, rejection(order)) == [CANCELLED]
    assert await contents(orders.engine, metadata) == before


async def test_a_cancelled_order_is_done_with_once_its_stock_is_released(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    await cancel(orders, order)
    assert await is_outstanding(orders, order)
    assert await settle(orders, release(order)) == [CANCELLED]
    assert not await is_outstanding(orders, order)


async def test_releasing_an_order_that_is_not_cancelled_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    before = await contents(orders.engine, metadata)
    assert await settle(orders, release(order)) == [PENDING]
    assert await contents(orders.engine, metadata) == before


async def test_a_rehearsal_is_answered_as_if_it_were_recorded_and_changes_nothing(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    confirmed, rejected, cancelled, fine = [
        (await place(orders, customer, (tea.id, 1))).id for _ in range(4)
    ]
    await cancel(orders, cancelled)
    settlements = [settlement(confirmed), rejection(rejected), release(cancelled), release(fine)]
    settlements.append(settlement(str(uuid.uuid4())))
    before = await contents(orders.engine, metadata)
    rehearsal = pb.SettleOrdersRequest(settlements=settlements, validate_only=True)
    answer = await ask(orders.stub.SettleOrders, rehearsal)
    assert await contents(orders.engine, metadata) == before
    statuses = [result.status for result in answer.results]
    assert statuses == [CONFIRMED, REJECTED, CANCELLED, PENDING, pb.ORDER_STATUS_UNSPECIFIED]
    assert statuses == await settle(orders, *settlements)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (pb.Settlement(order_id=str(uuid.uuid4())), "INVALID_OUTCOME"),
        (settlement(""), "INVALID_ORDER_ID"),
        (settlement("7"), "INVALID_ORDER_ID"),
    ],
)
async def test_a_batch_with_a_malformed_settlement_is_refused_as_a_whole(
    orders: Orders,
    customer: int,
    tea: inventory_pb2.Product,
    *,
    wrong: pb.Settlement,
    reason: str,
) -> None:
    order = (await place(orders, customer, (tea.id, 1))).id
    async with refuses(orders, Code.INVALID_ARGUMENT, reason):
        await settle(orders, settlement(order), wrong)


async def test_a_thousand_orders_are_settled_at_once_and_no_more(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await place_all(orders, *[wanted(customer, (tea.id, 1))] * 1000)
    batch = [settlement(order.id) for order in results if isinstance(order, pb.Order)]
    async with refuses(orders, Code.INVALID_ARGUMENT, "TOO_MANY_ITEMS"):
        await settle(orders, *batch, settlement(str(uuid.uuid4())))
    assert await settle(orders, *batch) == [CONFIRMED] * 1000


async def test_no_settlements_are_answered_by_no_results(orders: Orders) -> None:
    assert await settle(orders) == []


async def test_the_same_settlements_in_many_batches_at_once_never_deadlock(
    orders: Orders, customer: int, tea: inventory_pb2.Product
) -> None:
    results = await place_all(orders, *[wanted(customer, (tea.id, 1))] * 80)
    batch = [settlement(order.id) for order in results if isinstance(order, pb.Order)]
    answers = await asyncio.gather(
        *(settle(orders, *random.sample(batch, len(batch))) for _ in range(12))
    )
    assert Counter(status for answer in answers for status in answer) == {CONFIRMED: 12 * 80}
    assert await stored_of(orders, customer) == (80, 160)


# Neighbours


@asynccontextmanager
async def behind_proxies(
    infrastructure: Infrastructure, users: Users, inventory: Inventory
) -> AsyncIterator[tuple[Orders, dict[str, TcpProxy]]]:
    """An order service of its own whose neighbours can be made to fail."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = await enter(infrastructure.database())
        users_proxy, users_address = await enter(proxied(users.address))
        inventory_proxy, inventory_address = await enter(proxied(inventory.address))
        orders = await enter(
            orders_running(url, users_address=users_address, inventory_address=inventory_address)
        )
        yield orders, {"users": users_proxy, "inventory": inventory_proxy}


async def is_placed(orders: Orders, user_id: int, *items: tuple[int, int], key: str) -> bool:
    """Whether the order could be placed this time."""
    with suppress(Unavailable):
        await place(orders, user_id, *items, key=key)
        return True
    return False


@pytest.mark.parametrize("neighbour", ["users", "inventory"])
async def test_while_a_neighbour_is_away_or_hangs_nothing_is_stored(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    *,
    customer: int,
    tea: inventory_pb2.Product,
    neighbour: str,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        proxy = proxies[neighbour]
        proxy.pause()  # before there is a connection
        async with refuses(orders, *AWAY):
            await place(orders, customer, (tea.id, 1), key="a")
        await proxy.cut()
        async with refuses(orders, *AWAY):
            await place(orders, customer, (tea.id, 1), key="a")
        await proxy.resume()
        await eventually(lambda: is_placed(orders, customer, (tea.id, 1), key="a"), within=5)
        assert await stored_of(orders, customer) == (1, 1)
        proxy.pause()  # on a connection that stood
        async with refuses(orders, *HANGS):
            await place(orders, customer, (tea.id, 1))
        async with refuses(orders, *HANGS):
            await place_all(orders, *[wanted(customer, (tea.id, 1))] * 2)


async def test_a_neighbour_whose_connection_broke_is_asked_again_unnoticed(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    customer: int,
    tea: inventory_pb2.Product,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        await place(orders, customer, (tea.id, 1))
        for proxy in proxies.values():
            proxy.drop()
            assert (await place(orders, customer, (tea.id, 1))).status == PENDING


async def test_a_client_in_a_hurry_does_not_wait_for_a_neighbour_that_hangs(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    customer: int,
    tea: inventory_pb2.Product,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        proxies["users"].pause()
        with pytest.raises(DeadlineExceeded):
            await call(orders.stub.CreateOrder, wanted(customer, (tea.id, 1)), timeout=0.3)
        await proxies["users"].resume()
        await eventually(lambda: is_placed(orders, customer, (tea.id, 1), key="a"), within=5)
        assert await stored_of(orders, customer) == (1, 1)


async def test_orders_can_be_seen_and_cancelled_while_all_neighbours_are_away(
    infrastructure: Infrastructure,
    users: Users,
    inventory: Inventory,
    customer: int,
    tea: inventory_pb2.Product,
) -> None:
    async with behind_proxies(infrastructure, users, inventory) as (orders, proxies):
        order = await place(orders, customer, (tea.id, 1))
        for proxy in proxies.values():
            await proxy.cut()
        assert (await get(orders, order.id, customer)).status == PENDING
        assert len((await listed(orders, customer)).orders) == 1
        assert await settle(orders, settlement(order.id)) == [CONFIRMED]
        assert (await cancel(orders, order.id)).status == CANCELLED


# The database and the server


async def test_health_and_reflection_answer(orders: Orders) -> None:
    assert await health(orders.address) == "SERVING"
    assert await health(orders.address, NAME) == "SERVING"
    assert {NAME, "grpc.health.v1.Health"} <= await reflected(orders.address)
    assert await described(orders.address, NAME)


async def test_the_migrations_make_what_the_models_describe(
    orders: Orders, infrastructure: Infrastructure
) -> None:
    assert await differences(orders.engine, metadata) == []
    async with infrastructure.database() as url, open_engine(url, "tests") as engine:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        assert await schema(orders.engine) == await schema(engine)


async def test_replicas_may_migrate_at_the_same_time(infrastructure: Infrastructure) -> None:
    async with infrastructure.database() as url:
        assert await migrated_by_replicas("order_service", url) == [0, 0, 0]
        async with open_engine(url, "tests") as engine:
            assert await differences(engine, metadata) == []


async def test_a_port_that_is_taken_is_told_in_one_line(
    infrastructure: Infrastructure, orders: Orders
) -> None:
    taken = int(orders.address.rpartition(":")[2])
    async with infrastructure.database() as url:
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{taken}"):
            async with orders_running(
                url,
                users_address=f"127.0.0.1:{free_port()}",
                inventory_address=f"127.0.0.1:{free_port()}",
                port=taken,
            ):
                pass
