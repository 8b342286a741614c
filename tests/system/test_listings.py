"""Lists page by page, filters, and money in and out."""

import uuid
from collections.abc import Sequence

import pytest

from tests.support.system import System
from tests.system import ledger
from tests.system.shop import WAIT, Caller, Json, problem


async def pages(caller: Caller, path: str, key: str, **query: object) -> list[list[Json]]:
    """Every page of a list, first to last."""
    found, token = [], ""
    while True:
        page = await caller.get(path, page_token=token, **query)
        found.append(page[key])
        token = page["next_page_token"]
        if not token:
            return found


def _ids(found: Sequence[Sequence[Json]]) -> list[object]:
    return [each["id"] for page in found for each in page]


async def test_products_come_page_by_page_without_gap_or_repetition(
    admin: Caller, nobody: Caller
) -> None:
    name = uuid.uuid4().hex
    made = [await admin.product(name=f"{name} {number}") for number in range(7)]
    found = await pages(nobody, "/v1/products", "products", query=name, page_size=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert _ids(found) == made


async def test_a_full_last_page_is_the_last(admin: Caller, nobody: Caller) -> None:
    name = uuid.uuid4().hex
    for _ in range(4):
        await admin.product(name=name)
    found = await pages(nobody, "/v1/products", "products", query=name, page_size=2)
    assert [len(page) for page in found] == [2, 2]


async def test_products_are_found_by_any_part_of_their_name_taken_literally(
    admin: Caller, nobody: Caller
) -> None:
    mark = uuid.uuid4().hex
    product = await admin.product(name=f"100% Wool_Socks {mark}")
    for query in (f"SOCKS {mark}", f"100% wool_socks {mark}"):
        assert _ids(await pages(nobody, "/v1/products", "products", query=query)) == [product]
    for query in (f"%{mark}", f"Wool-Socks {mark}", f"1000 Wool_Socks {mark}"):
        assert _ids(await pages(nobody, "/v1/products", "products", query=query)) == []


async def test_a_customers_orders_are_theirs_newest_first(
    system: System, admin: Caller, nobody: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=5)
    await (await nobody.registered()).order(product)
    confirmed = [(await customer.order(product))["id"] for _ in range(3)]
    (cancelled,) = confirmed[1:2]
    await customer.post(f"/v1/orders/{cancelled}/cancel", status=200)
    await system.at_rest()

    found = await pages(customer, "/v1/orders", "orders", page_size=2)

    assert [len(page) for page in found] == [2, 1]
    assert _ids(found) == confirmed[::-1]
    only = await pages(customer, "/v1/orders", "orders", status="CANCELLED")
    assert _ids(only) == [cancelled]
    only = await pages(customer, "/v1/orders", "orders", status="CONFIRMED", page_size=1)
    assert _ids(only) == [confirmed[2], confirmed[0]]
    assert (await customer.get("/v1/orders", status="REJECTED"))["orders"] == []


async def test_an_administrator_sees_everyones_orders(admin: Caller, customer: Caller) -> None:
    order = await customer.order(await admin.product())
    assert (await admin.get("/v1/orders", page_size=1))["orders"][0]["id"] == order["id"]
    shown = await admin.get(f"/v1/orders/{order['id']}")
    assert shown["user_id"] == customer.user_id


async def test_the_ledger_comes_newest_first(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=10)
    order = await customer.order(product, 4)
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
    assert await ledger.stock(system, product) == 10


async def test_an_administrator_changes_what_is_sold_and_orders_keep_their_price(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(price="12.50", name="old")
    order = await customer.order(product)
    changes = {"name": "new", "price": 13, "description": "better"}
    answer = await admin.call("PATCH", f"/v1/products/{product}", changes)
    assert answer.status_code == 200
    shown = await customer.get(f"/v1/products/{product}")
    assert (shown["name"], shown["price"], shown["description"]) == ("new", "13.00", "better")
    assert shown["stock"] == 99
    (item,) = (await customer.get(f"/v1/orders/{order['id']}"))["items"]
    assert (item["name"], item["unit_price"]) == ("old", "12.50")


async def test_an_administrator_chooses_an_id(admin: Caller, nobody: Caller) -> None:
    chosen = uuid.uuid4().int % 2**40 + 2**40
    body = {"id": chosen, "name": "thing", "price": "1.00", "stock": 1}
    answer = await admin.call("POST", "/v1/products", body)
    assert (answer.status_code, answer.json()["id"]) == (201, chosen)
    assert answer.headers["Location"] == f"/v1/products/{chosen}"
    assert (await nobody.get(answer.headers["Location"]))["id"] == chosen
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
    system: System, admin: Caller, read: bytes, written: str, cents: int
) -> None:
    body = b'{"name": "thing", "stock": 7, "price": ' + read + b"}"
    answer = await admin.call("POST", "/v1/products", body)
    assert (answer.status_code, answer.json()["price"]) == (201, written)
    product = answer.json()["id"]
    stored = await system.inventory.value("SELECT price_cents FROM products WHERE id = $1", product)
    assert stored == cents
    order = await admin.order(product, 7)
    assert (order["items"][0]["unit_price"], order["items"][0]["total_price"]) == (
        written,
        order["total_price"],
    )
    total = await system.orders.value("SELECT total_cents FROM orders WHERE id = $1", order["id"])
    assert total == cents * 7
    assert order["total_price"] == f"{total // 100}.{total % 100:02}"


async def test_repeated_products_in_an_order_are_added_up(
    system: System, admin: Caller, customer: Caller
) -> None:
    product, other = await admin.product(stock=10), await admin.product(stock=10)
    quantities = ((product, 2), (other, 1), (product, 3))
    items = [{"product_id": each, "quantity": quantity} for each, quantity in quantities]
    order = await customer.post("/v1/orders", {"items": items}, Prefer=WAIT)
    shown = {item["product_id"]: item["quantity"] for item in order["items"]}
    assert shown == {product: 5, other: 1}
    assert order["total_price"] == "75.00"
    assert await ledger.stock(system, product) == 5
    assert await ledger.stock(system, other) == 9
