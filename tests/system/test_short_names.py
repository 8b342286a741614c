"""The short paths that users of the earlier systems know, with the bodies they send."""

import uuid
from collections.abc import Mapping

import pytest

from tests.support.system import System
from tests.system import ledger
from tests.system.shop import PASSWORD, WAIT, Caller, Json, problem


def order_for(user_id: int, product_id: int, **changes: object) -> Json:
    """The body of /create_order; `changes` are more fields of its only item."""
    item = {"product_id": product_id, "quantity": 2, "unit_price": "12.50", "total_price": "25.00"}
    return {"user_id": user_id, "items": [item | changes]}


async def test_the_short_paths_serve_from_the_registration_to_the_order(
    system: System, nobody: Caller, admin: Caller
) -> None:
    product = await admin.product(stock=10, price="12.50")
    account = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD, "name": "Ada"}
    user = await nobody.post("/register", account)
    tokens = await nobody.post("/login", account, status=200)
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] > 0
    ada = Caller(nobody.http, tokens["access_token"], user["id"])

    asked = await nobody.post("/check_stock", {"product_id": product, "quantity": 10}, status=200)
    assert asked == {"available": True, "stock": 10}
    asked = await nobody.post("/check_stock", {"product_id": product, "quantity": 11}, status=200)
    assert asked == {"available": False, "stock": 10}

    order = await ada.post("/create_order", order_for(user["id"], product), Prefer=WAIT)
    assert (order["status"], order["total_price"]) == ("CONFIRMED", "25.00")
    assert await ledger.stock(system, product) == 8

    taken = await admin.post("/update_stock", {"product_id": product, "quantity": 3}, status=200)
    assert taken == {"product_id": product, "stock": 5}
    assert await ledger.movements(system, product) == [
        ("INITIAL", 10),
        ("DEDUCT", -2),
        ("ADJUSTMENT", -3),
    ]


async def test_an_administrator_orders_for_another(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=10, price="12.50")
    order = await admin.post("/create_order", order_for(customer.user_id, product), Prefer=WAIT)
    assert order["user_id"] == customer.user_id
    assert (await customer.get(f"/v1/orders/{order['id']}"))["status"] == "CONFIRMED"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"unit_price": "12.49", "total_price": "24.98"}, (409, "price_changed")),
        ({"total_price": "24.99"}, (409, "price_changed")),
        ({"unit_price": 12.501}, (422, "invalid_body")),
        ({"quantity": 0}, (422, "invalid_body")),
        ({"quantity": "2"}, (422, "invalid_body")),
        ({"product_id": 2**62}, (422, "unknown_product")),
        ({"quantity": 11, "total_price": "137.50"}, (409, "insufficient_stock")),
    ],
    ids=str,
)
async def test_an_order_that_does_not_fit_is_refused_and_changes_nothing(
    system: System,
    admin: Caller,
    customer: Caller,
    changes: Mapping[str, object],
    refusal: tuple[int, str],
) -> None:
    product = await admin.product(stock=10, price="12.50")
    body = order_for(customer.user_id, product)
    body["items"][0] |= changes
    async with system.unchanged():
        assert problem(await customer.call("POST", "/create_order", body)) == refusal


async def test_a_wrong_price_tells_the_right_one(admin: Caller, customer: Caller) -> None:
    product = await admin.product(price="12.50")
    body = order_for(customer.user_id, product, unit_price="1.00", total_price="2.00")
    answer = await customer.call("POST", "/create_order", body)
    assert problem(answer) == (409, "price_changed")
    assert answer.json()["metadata"] == {"product_id": product, "unit_price": "12.50"}


async def test_a_customer_orders_for_nobody_else(
    system: System, admin: Caller, nobody: Caller, customer: Caller
) -> None:
    product = await admin.product(price="12.50")
    other = await nobody.registered()
    async with system.unchanged():
        answer = await customer.call("POST", "/create_order", order_for(other.user_id, product))
        assert problem(answer) == (403, "forbidden")
