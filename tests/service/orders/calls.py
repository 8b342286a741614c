"""Calls of the order service as tests make them, and what is in its database afterwards."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
)
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import Row, select, text

from order_service.tables import metadata, outbox
from order_service.tables import orders as orders_table
from proto import inventory_pb2, user_pb2
from proto import order_pb2 as pb
from service_kit.errors import Code, ServiceError
from service_kit.grpc.status import from_status
from tests.support.database import refused
from tests.support.services import Inventory, Orders, Users, ask

UNKNOWN = 2**40
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"

INTERNAL = (Code.INTERNAL, "INTERNAL")
HANGS = (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
UNAVAILABLE = (Code.UNAVAILABLE, "UNAVAILABLE")

PENDING = pb.ORDER_STATUS_PENDING
CONFIRMED = pb.ORDER_STATUS_CONFIRMED
REJECTED = pb.ORDER_STATUS_REJECTED
CANCELLED = pb.ORDER_STATUS_CANCELLED

Outcome = pb.SettlementOutcome


async def register(users: Users) -> int:
    request = user_pb2.RegisterUserRequest(
        email=f"{uuid.uuid4().hex}@example.org", password="correct horse", name="Ada"
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


def order_request(user_id: int, *items: tuple[int, int], key: str = "") -> pb.CreateOrderRequest:
    """A request for these quantities of these products: pairs of product id and quantity."""
    return pb.CreateOrderRequest(
        user_id=user_id,
        items=[pb.NewOrderItem(product_id=product, quantity=number) for product, number in items],
        idempotency_key=key,
    )


async def place(orders: Orders, user_id: int, *items: tuple[int, int], key: str = "") -> pb.Order:
    return await ask(orders.stub.CreateOrder, order_request(user_id, *items, key=key))


async def place_all(
    orders: Orders, *requests: pb.CreateOrderRequest
) -> list[pb.Order | ServiceError]:
    response = await ask(
        orders.stub.BatchCreateOrders, pb.BatchCreateOrdersRequest(requests=requests)
    )
    return [
        each.order if each.HasField("order") else from_status(each.error)
        for each in response.results
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
    response = await ask(orders.stub.SettleOrders, request)
    assert [each.order_id for each in response.results] == [each.order_id for each in settlements]
    return [each.status for each in response.results]


async def events_of(orders: Orders, order_id: str) -> list[Row[Any]]:
    """The outbox rows of an order, oldest first."""
    statement = select(outbox).where(outbox.c.order_id == order_id).order_by(outbox.c.id)
    async with orders.engine.connect() as connection:
        return list(await connection.execute(statement))


async def types_of(orders: Orders, order_id: str) -> list[str]:
    return [event.type for event in await events_of(orders, order_id)]


async def is_unanswered(orders: Orders, order_id: str) -> bool:
    """Whether inventory has not answered the last event of the order."""
    statement = select(orders_table.c.next_republish_at).where(orders_table.c.id == order_id)
    async with orders.engine.connect() as connection:
        return await connection.scalar(statement) is not None


async def stored_counts(orders: Orders, user_id: int) -> tuple[int, int]:
    """How many orders a user has, and how many events they have."""
    statement = text("""
        SELECT count(DISTINCT orders.id), count(outbox.id)
        FROM orders LEFT JOIN outbox ON outbox.order_id = orders.id WHERE user_id = :user_id
    """)
    async with orders.engine.connect() as connection:
        found = (await connection.execute(statement, {"user_id": user_id})).one()
    return found[0], found[1]


async def list_page(
    orders: Orders, user_id: int = 0, page_size: int = 0, page_token: str = "", status: int = 0
) -> pb.ListOrdersResponse:
    request = pb.ListOrdersRequest(
        user_id=user_id,
        page_size=page_size,
        page_token=page_token,
        status=status,  # type: ignore[arg-type] # also numbers that are no status
    )
    return await ask(orders.stub.ListOrders, request)


async def waiting_for(orders: Orders, order_id: str) -> "asyncio.Task[pb.Order]":
    """A call that waits up to 30 s for the order, and has begun to wait."""
    task = asyncio.create_task(get(orders, order_id, wait=30))
    done, _ = await asyncio.wait({task}, timeout=0.3)
    assert not done
    return task


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
