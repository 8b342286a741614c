"""The legacy paths: those of earlier systems, with the bodies of their clients."""

import uuid
from collections.abc import Mapping

import pytest

from tests.support.api_client import PASSWORD, WAIT, ApiClient, Json, problem
from tests.support.system import System
from tests.system import database


def order_for(user_id: int, product_id: int, **changes: object) -> Json:
    """The body of /create_order; `changes` are more fields of its only item."""
    item = {"product_id": product_id, "quantity": 2, "unit_price": "12.50", "total_price": "25.00"}
    return {"user_id": user_id, "items": [item | changes]}


async def test_the_short_paths_work_from_registration_to_order(
    system: System, anonymous: ApiClient, admin: ApiClient
) -> None:
    product = await admin.create_product(stock=10, price="12.50")
    account = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD, "name": "Ada"}
    user = await anonymous.post("/register", account)
    tokens = await anonymous.post("/login", account, status=200)
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] > 0
    ada = ApiClient(anonymous.http, tokens["access_token"], user["id"])

    checked = await anonymous.post(
        "/check_stock", {"product_id": product, "quantity": 10}, status=200
    )
    assert checked == {"available": True, "stock": 10}
    checked = await anonymous.post(
        "/check_stock", {"product_id": product, "quantity": 11}, status=200
    )
    assert checked == {"available": False, "stock": 10}

    order = await ada.post("/create_order", order_for(user["id"], product), Prefer=WAIT)
    assert (order["status"], order["total_price"]) == ("CONFIRMED", "25.00")
    assert await database.stock(system, product) == 8

    updated = await admin.post("/update_stock", {"product_id": product, "quantity": 3}, status=200)
    assert updated == {"product_id": product, "stock": 5}
    assert await database.stock_movements(system, product) == [
        ("INITIAL", 10),
        ("DEDUCT", -2),
        ("ADJUSTMENT", -3),
    ]


async def test_an_administrator_can_order_for_a_customer(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=10, price="12.50")
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
async def test_an_invalid_order_is_refused_and_changes_nothing(
    system: System,
    admin: ApiClient,
    customer: ApiClient,
    changes: Mapping[str, object],
    refusal: tuple[int, str],
) -> None:
    product = await admin.create_product(stock=10, price="12.50")
    body = order_for(customer.user_id, product)
    body["items"][0] |= changes
    async with system.unchanged():
        assert problem(await customer.call("POST", "/create_order", body)) == refusal


async def test_the_refusal_of_a_wrong_price_has_the_right_one(
    admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(price="12.50")
    body = order_for(customer.user_id, product, unit_price="1.00", total_price="2.00")
    response = await customer.call("POST", "/create_order", body)
    assert problem(response) == (409, "price_changed")
    assert response.json()["metadata"] == {"product_id": product, "unit_price": "12.50"}


async def test_a_customer_cannot_order_for_another_user(
    system: System, admin: ApiClient, anonymous: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(price="12.50")
    other = await anonymous.register()
    async with system.unchanged():
        response = await customer.call("POST", "/create_order", order_for(other.user_id, product))
        assert problem(response) == (403, "forbidden")
