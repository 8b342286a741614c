"""Lists and their pages, filters, products, and money."""

import uuid
from collections.abc import Sequence

import pytest

from tests.support.api_client import WAIT, ApiClient, Json, problem
from tests.support.system import System
from tests.system import database


async def pages(caller: ApiClient, path: str, key: str, **query: object) -> list[list[Json]]:
    """All pages of a list."""
    found, token = [], ""
    while True:
        page = await caller.get(path, page_token=token, **query)
        found.append(page[key])
        token = page["next_page_token"]
        if not token:
            return found


def _ids(found: Sequence[Sequence[Json]]) -> list[object]:
    return [each["id"] for page in found for each in page]


async def test_pages_of_products_have_each_product_once(
    admin: ApiClient, anonymous: ApiClient
) -> None:
    name = uuid.uuid4().hex
    made = [await admin.create_product(name=f"{name} {number}") for number in range(7)]
    found = await pages(anonymous, "/v1/products", "products", query=name, page_size=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert _ids(found) == made


async def test_a_full_last_page_has_no_next_page(admin: ApiClient, anonymous: ApiClient) -> None:
    name = uuid.uuid4().hex
    for _ in range(4):
        await admin.create_product(name=name)
    found = await pages(anonymous, "/v1/products", "products", query=name, page_size=2)
    assert [len(page) for page in found] == [2, 2]


async def test_products_are_found_by_any_literal_part_of_their_name(
    admin: ApiClient, anonymous: ApiClient
) -> None:
    mark = uuid.uuid4().hex
    product = await admin.create_product(name=f"100% Wool_Socks {mark}")
    for query in (f"SOCKS {mark}", f"100% wool_socks {mark}"):
        assert _ids(await pages(anonymous, "/v1/products", "products", query=query)) == [product]
    for query in (f"%{mark}", f"Wool-Socks {mark}", f"1000 Wool_Socks {mark}"):
        assert _ids(await pages(anonymous, "/v1/products", "products", query=query)) == []


async def test_a_customer_lists_only_their_own_orders_newest_first(
    system: System, admin: ApiClient, anonymous: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=5)
    await (await anonymous.register()).place_order(product)
    confirmed = [(await customer.place_order(product))["id"] for _ in range(3)]
    (cancelled,) = confirmed[1:2]
    await customer.post(f"/v1/orders/{cancelled}/cancel", status=200)
    await system.wait_until_settled()

    found = await pages(customer, "/v1/orders", "orders", page_size=2)

    assert [len(page) for page in found] == [2, 1]
    assert _ids(found) == confirmed[::-1]
    only = await pages(customer, "/v1/orders", "orders", status="CANCELLED")
    assert _ids(only) == [cancelled]
    only = await pages(customer, "/v1/orders", "orders", status="CONFIRMED", page_size=1)
    assert _ids(only) == [confirmed[2], confirmed[0]]
    assert (await customer.get("/v1/orders", status="REJECTED"))["orders"] == []


async def test_an_administrator_lists_the_orders_of_all_users(
    admin: ApiClient, customer: ApiClient
) -> None:
    order = await customer.place_order(await admin.create_product())
    assert (await admin.get("/v1/orders", page_size=1))["orders"][0]["id"] == order["id"]
    shown = await admin.get(f"/v1/orders/{order['id']}")
    assert shown["user_id"] == customer.user_id


async def test_stock_movements_are_listed_newest_first(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=10)
    order = await customer.place_order(product, 4)
    path = f"/v1/products/{product}/stock-adjustments"
    moved = await admin.post(path, {"delta": 5, "reason": "delivery"})
    assert moved == {"product_id": product, "stock": 11}
    await admin.post(path, {"delta": -1, "reason": "broken"})

    path = f"/v1/products/{product}/stock-movements"
    found = await pages(admin, path, "movements", page_size=3)

    rows = [
        (row["kind"], row["delta"], row["order_id"], row["reason"])
        for page in found
        for row in page
    ]
    assert rows == [
        ("ADJUSTMENT", -1, "", "broken"),
        ("ADJUSTMENT", 5, "", "delivery"),
        ("DEDUCT", -4, order["id"], ""),
        ("INITIAL", 10, "", ""),
    ]
    assert await database.stock(system, product) == 10


async def test_a_change_of_a_product_does_not_change_past_orders(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(price="12.50", name="old")
    order = await customer.place_order(product)
    changes = {"name": "new", "price": 13, "description": "better"}
    response = await admin.call("PATCH", f"/v1/products/{product}", changes)
    assert response.status_code == 200
    shown = await customer.get(f"/v1/products/{product}")
    assert (shown["name"], shown["price"], shown["description"]) == ("new", "13.00", "better")
    assert shown["stock"] == 99
    (item,) = (await customer.get(f"/v1/orders/{order['id']}"))["items"]
    assert (item["name"], item["unit_price"]) == ("old", "12.50")


async def test_an_administrator_can_choose_the_id_of_a_product(
    admin: ApiClient, anonymous: ApiClient
) -> None:
    chosen = uuid.uuid4().int % 2**40 + 2**40
    body = {"id": chosen, "name": "thing", "price": "1.00", "stock": 1}
    response = await admin.call("POST", "/v1/products", body)
    assert (response.status_code, response.json()["id"]) == (201, chosen)
    assert response.headers["Location"] == f"/v1/products/{chosen}"
    assert (await anonymous.get(response.headers["Location"]))["id"] == chosen
    assert problem(await admin.call("POST", "/v1/products", body)) == (409, "product_exists")


@pytest.mark.parametrize(
    ("read", "written", "cents"),
    [
        (b'"500.00"', "500.00", 50_000),
        (b'"500"', "500.00", 50_000),
        (b'"0.1"', "0.10", 10),
        (b"500", "500.00", 50_000),
        (b"19.99", "19.99", 1_999),
        (b"0.07", "0.07", 7),
        (b"1.10", "1.10", 110),
        (b"0", "0.00", 0),
        (b"4.35", "4.35", 435),
        (b"9999999999.99", "9999999999.99", 999_999_999_999),
    ],
)
async def test_money_is_read_from_strings_and_numbers_and_kept_to_the_cent(
    system: System, admin: ApiClient, read: bytes, written: str, cents: int
) -> None:
    body = b'{"name": "thing", "stock": 7, "price": ' + read + b"}"
    response = await admin.call("POST", "/v1/products", body)
    assert (response.status_code, response.json()["price"]) == (201, written)
    product = response.json()["id"]
    stored = await system.inventory.value("SELECT price_cents FROM products WHERE id = $1", product)
    assert stored == cents
    order = await admin.place_order(product, 7)
    assert (order["items"][0]["unit_price"], order["items"][0]["total_price"]) == (
        written,
        order["total_price"],
    )
    total = await system.orders.value("SELECT total_cents FROM orders WHERE id = $1", order["id"])
    assert total == cents * 7
    assert order["total_price"] == f"{total // 100}.{total % 100:02}"


async def test_quantities_of_a_repeated_product_are_summed(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product, other = await admin.create_product(stock=10), await admin.create_product(stock=10)
    quantities = ((product, 2), (other, 1), (product, 3))
    items = [{"product_id": each, "quantity": quantity} for each, quantity in quantities]
    order = await customer.post("/v1/orders", {"items": items}, Prefer=WAIT)
    shown = {item["product_id"]: item["quantity"] for item in order["items"]}
    assert shown == {product: 5, other: 1}
    assert order["total_price"] == "75.00"
    assert await database.stock(system, product) == 5
    assert await database.stock(system, other) == 9
