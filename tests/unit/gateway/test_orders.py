"""Orders are placed, read, cancelled and refused; clients may wait for settlement."""

import asyncio

from proto import order_pb2, user_pb2
from tests.unit.gateway.backend import ADMIN_ID, CUSTOMER_ID, ORDER, OTHER_ID, Shop
from tests.unit.gateway.checks import assert_json, assert_problem


async def test_an_order_is_placed_read_and_cancelled(shop: Shop) -> None:
    headers = shop.bearer()
    placed = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    order = assert_json(placed, 201, "Order")
    assert (order["status"], order["total_price"]) == ("PENDING", "1000.00")
    path = f"/v1/orders/{order['id']}"
    assert placed.headers["Location"] == path
    assert_json(await shop.client.get(path, headers=headers), 200, "Order")
    mine = await shop.client.get("/v1/orders", headers=headers)
    assert len(assert_json(mine, 200, "OrderPage")["orders"]) == 1  # type: ignore[arg-type]
    cancelled = await shop.client.post(f"{path}/cancel", headers=headers)
    assert assert_json(cancelled, 200, "Order")["status"] == "CANCELLED"
    shop.orders.orders[str(order["id"])].status = order_pb2.ORDER_STATUS_REJECTED
    refused = await shop.client.post(f"{path}/cancel", headers=headers)
    assert_problem(refused, 409, "not_cancellable")


async def test_another_users_order_is_not_found_but_an_administrator_sees_all(shop: Shop) -> None:
    placed = await shop.client.post("/v1/orders", json=ORDER, headers=shop.bearer())
    path = placed.headers["Location"]
    other, admin = shop.bearer(OTHER_ID), shop.bearer(ADMIN_ID)
    assert_problem(await shop.client.get(path, headers=other), 404, "not_found")
    assert_problem(await shop.client.post(f"{path}/cancel", headers=other), 404, "not_found")
    assert (await shop.client.get("/v1/orders", headers=other)).json()["orders"] == []
    assert (await shop.client.get(path, headers=admin)).status_code == 200
    assert len((await shop.client.get("/v1/orders", headers=admin)).json()["orders"]) == 1
    shop.users.users[ADMIN_ID].role = user_pb2.ROLE_CUSTOMER
    assert_problem(await shop.client.get(path, headers=admin), 404, "not_found")
    assert_problem(await shop.client.get("/v1/orders/nonsense", headers=other), 404, "not_found")


async def test_an_order_with_a_wrong_product_price_quantity_or_key_is_refused(shop: Shop) -> None:
    headers = shop.bearer()
    unknown = {"items": [{"product_id": 7, "quantity": 1}]}
    refused = await shop.client.post("/v1/orders", json=unknown, headers=headers)
    assert_problem(refused, 422, "unknown_product")
    other_price = {"items": [{"product_id": 1, "quantity": 1, "unit_price": "1.00"}]}
    refused = await shop.client.post("/v1/orders", json=other_price, headers=headers)
    assert assert_problem(refused, 409, "price_changed")["metadata"] == {"unit_price": "500.00"}
    wrong = {"items": [{"product_id": 1, "quantity": 1.0}]}
    refused = await shop.client.post("/v1/orders", json=wrong, headers=headers)
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/items/0/quantity"]
    for key in ("", "with space", "ü".encode(), "x" * 256):
        sent = [*headers.items(), ("Idempotency-Key", key)]
        refused = await shop.client.post("/v1/orders", json=ORDER, headers=sent)  # type: ignore[arg-type]
        assert_problem(refused, 422, "invalid_parameter")


async def test_the_same_idempotency_key_returns_the_same_order(shop: Shop) -> None:
    headers = {**shop.bearer(), "Idempotency-Key": "k1"}
    first = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    again = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]


async def test_the_legacy_path_places_an_order_at_the_given_prices(shop: Shop) -> None:
    item = {"product_id": 2, "quantity": 3, "unit_price": 19.99, "total_price": "59.97"}
    mine = {"user_id": CUSTOMER_ID, "items": [item]}
    headers, admin = shop.bearer(), shop.bearer(ADMIN_ID)
    placed = await shop.client.post("/create_order", json=mine, headers=headers)
    assert assert_json(placed, 201, "Order")["total_price"] == "59.97"
    wrong_total = {**mine, "items": [{**item, "total_price": "59.98"}]}
    refused = await shop.client.post("/create_order", json=wrong_total, headers=headers)
    assert_problem(refused, 409, "price_changed")
    wrong_price = {**mine, "items": [{**item, "unit_price": 1, "total_price": 3}]}
    refused = await shop.client.post("/create_order", json=wrong_price, headers=headers)
    assert_problem(refused, 409, "price_changed")
    for_other = {**mine, "user_id": OTHER_ID}
    refused = await shop.client.post("/create_order", json=for_other, headers=headers)
    assert_problem(refused, 403, "forbidden")
    placed = await shop.client.post("/create_order", json=for_other, headers=admin)
    assert assert_json(placed, 201, "Order")["user_id"] == OTHER_ID


async def test_concurrent_orders_travel_in_batches_with_their_own_contexts(shop: Shop) -> None:
    shop.orders.delay_seconds = 0.05
    responses = await asyncio.gather(
        *(
            shop.client.post(
                "/v1/orders", json=ORDER, headers={**shop.bearer(), "X-Request-Id": f"r{number}"}
            )
            for number in range(40)
        )
    )
    assert {response.status_code for response in responses} == {201}
    assert sum(shop.orders.batches) == 40
    assert len(shop.orders.batches) < 10
    assert {context.request_id for context in shop.orders.contexts} == {f"r{n}" for n in range(40)}
    assert all(len(context.traceparent) == 55 for context in shop.orders.contexts)


async def test_a_client_that_prefers_to_wait_gets_the_settled_order(shop: Shop) -> None:
    headers = {**shop.bearer(), "Prefer": "wait=20"}
    waiting = asyncio.create_task(shop.client.post("/v1/orders", json=ORDER, headers=headers))
    await shop.orders.placed.wait()
    shop.orders.settled.set()
    response = await waiting
    assert assert_json(response, 201, "Order")["status"] == "CONFIRMED"
    assert response.headers["Preference-Applied"] == "wait=20"


async def test_a_wait_that_ends_returns_the_pending_order(shop: Shop) -> None:
    headers = {**shop.bearer(), "Prefer": "wait=1"}
    response = await shop.client.post("/v1/orders", json=ORDER, headers=headers)
    assert assert_json(response, 201, "Order")["status"] == "PENDING"
