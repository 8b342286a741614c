"""Many buyers at once: the last unit is sold once, and an order placed twenty times is one."""

import asyncio
import uuid
from collections import Counter

from tests.support.system import System
from tests.system import ledger
from tests.system.shop import WAIT, Caller, problem

BUYERS = 100


async def test_the_last_unit_wanted_by_a_hundred_buyers_is_sold_once(
    system: System, nobody: Caller, admin: Caller
) -> None:
    buyers = await asyncio.gather(*(nobody.registered() for _ in range(BUYERS)))
    product = await admin.product(stock=1)
    body = {"items": [{"product_id": product, "quantity": 1}]}

    answers = await asyncio.gather(
        *(buyer.call("POST", "/v1/orders", body, {"Prefer": WAIT}) for buyer in buyers)
    )

    outcomes = Counter(
        answer.json()["status"] if answer.status_code == 201 else problem(answer)
        for answer in answers
    )
    assert outcomes["CONFIRMED"] == 1
    assert outcomes["REJECTED"] + outcomes[409, "insufficient_stock"] == BUYERS - 1
    for answer in answers:
        if answer.status_code == 201 and answer.json()["status"] == "REJECTED":
            assert answer.json()["shortages"] == [
                {"product_id": product, "requested": 1, "available": 0}
            ]
    assert await ledger.stock(system, product) == 0
    assert await ledger.movements(system, product) == [("INITIAL", 1), ("DEDUCT", -1)]
    stored = await system.orders.rows(
        "SELECT status, count(*) FROM orders JOIN order_items ON order_id = orders.id"
        " WHERE product_id = $1 GROUP BY status",
        product,
    )
    accepted = {"CONFIRMED": 1, "REJECTED": outcomes["REJECTED"]}
    assert {row["status"]: row["count"] for row in stored} == {
        status: count for status, count in accepted.items() if count
    }


async def test_twenty_tries_with_one_key_place_one_order(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=50)
    key = str(uuid.uuid4())

    orders = await asyncio.gather(
        *(customer.order(product, 2, Idempotency_Key=key) for _ in range(20))
    )
    again = await customer.order(product, 2, Idempotency_Key=key)

    assert {order["id"] for order in orders} == {again["id"]}
    assert again["status"] == "CONFIRMED"
    assert await ledger.movements(system, product) == [("INITIAL", 50), ("DEDUCT", -2)]
    placed = await system.orders.value(
        "SELECT count(*) FROM orders WHERE user_id = $1", customer.user_id
    )
    assert placed == 1


async def test_a_key_used_for_one_order_does_not_serve_for_another(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product()
    await customer.order(product, 2, Idempotency_Key="mine")
    body = {"items": [{"product_id": product, "quantity": 3}]}
    async with system.unchanged():
        answer = await customer.call("POST", "/v1/orders", body, {"Idempotency-Key": "mine"})
        assert problem(answer) == (409, "idempotency_key_reused")


async def test_a_key_belongs_to_its_user(nobody: Caller, admin: Caller, customer: Caller) -> None:
    product = await admin.product()
    other = await nobody.registered()
    mine = await customer.order(product, Idempotency_Key="shared")
    theirs = await other.order(product, Idempotency_Key="shared")
    assert mine["id"] != theirs["id"]
    assert theirs["user_id"] == other.user_id
