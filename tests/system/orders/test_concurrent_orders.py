"""Concurrent orders: the last unit is sold once, and one idempotency key is one order."""

import asyncio
import uuid
from collections import Counter

from tests.support.api_client import WAIT, ApiClient, problem
from tests.support.system import System
from tests.system import database

BUYERS = 100


async def test_the_last_unit_ordered_by_a_hundred_buyers_is_sold_once(
    system: System, anonymous: ApiClient, admin: ApiClient
) -> None:
    buyers = await asyncio.gather(*(anonymous.register() for _ in range(BUYERS)))
    product = await admin.create_product(stock=1)
    body = {"items": [{"product_id": product, "quantity": 1}]}

    responses = await asyncio.gather(
        *(buyer.call("POST", "/v1/orders", body, {"Prefer": WAIT}) for buyer in buyers)
    )

    outcomes = Counter(
        response.json()["status"] if response.status_code == 201 else problem(response)
        for response in responses
    )
    assert outcomes["CONFIRMED"] == 1
    assert outcomes["REJECTED"] + outcomes[409, "insufficient_stock"] == BUYERS - 1
    for response in responses:
        if response.status_code == 201 and response.json()["status"] == "REJECTED":
            assert response.json()["shortages"] == [
                {"product_id": product, "requested": 1, "available": 0}
            ]
    assert await database.stock(system, product) == 0
    assert await database.stock_movements(system, product) == [("INITIAL", 1), ("DEDUCT", -1)]
    stored = await system.orders.rows(
        "SELECT status, count(*) FROM orders JOIN order_items ON order_id = orders.id"
        " WHERE product_id = $1 GROUP BY status",
        product,
    )
    accepted = {"CONFIRMED": 1, "REJECTED": outcomes["REJECTED"]}
    assert {row["status"]: row["count"] for row in stored} == {
        status: count for status, count in accepted.items() if count
    }


async def test_twenty_requests_with_one_key_place_one_order(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=50)
    key = str(uuid.uuid4())

    orders = await asyncio.gather(
        *(customer.place_order(product, 2, Idempotency_Key=key) for _ in range(20))
    )
    again = await customer.place_order(product, 2, Idempotency_Key=key)

    assert {order["id"] for order in orders} == {again["id"]}
    assert again["status"] == "CONFIRMED"
    assert await database.stock_movements(system, product) == [("INITIAL", 50), ("DEDUCT", -2)]
    placed = await system.orders.value(
        "SELECT count(*) FROM orders WHERE user_id = $1", customer.user_id
    )
    assert placed == 1


async def test_a_key_of_one_order_is_refused_for_another(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product()
    await customer.place_order(product, 2, Idempotency_Key="mine")
    body = {"items": [{"product_id": product, "quantity": 3}]}
    async with system.unchanged():
        response = await customer.call("POST", "/v1/orders", body, {"Idempotency-Key": "mine"})
        assert problem(response) == (409, "idempotency_key_reused")


async def test_a_key_belongs_to_its_user(
    anonymous: ApiClient, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product()
    other = await anonymous.register()
    mine = await customer.place_order(product, Idempotency_Key="shared")
    theirs = await other.place_order(product, Idempotency_Key="shared")
    assert mine["id"] != theirs["id"]
    assert theirs["user_id"] == other.user_id
