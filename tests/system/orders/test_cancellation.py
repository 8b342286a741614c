"""Cancelling an order before, while and after its stock is deducted."""

from tests.support.api_client import ApiClient, problem
from tests.support.queues import deliver
from tests.support.system import System
from tests.support.waiting import eventually
from tests.system import database, queues


async def reservation_state(system: System, order_id: str) -> str | None:
    """The state of an order's reservation, once it exists."""

    async def stored() -> str | None:
        state: str | None = await system.inventory.value(
            "SELECT state FROM reservations WHERE order_id = $1", order_id
        )
        return state

    return await eventually(stored)


async def test_a_cancellation_that_arrives_before_its_order_deducts_no_stock(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=5)
    body = {"items": [{"product_id": product, "quantity": 2}]}
    async with system.paused("producer_service"):
        order = await customer.post("/v1/orders", body)
        cancelled = await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)
        assert (order["status"], cancelled["status"]) == ("PENDING", "CANCELLED")
        (event,) = await system.orders.rows(
            "SELECT id::text, body FROM outbox WHERE order_id = $1 AND type = 'order.cancelled'",
            order["id"],
        )
        await deliver(system.broker, event["body"], event["id"])
        assert await reservation_state(system, order["id"]) == "CANCELLED"

    # The producer continues: order.created arrives after its cancellation, which arrives again.
    await queues.audited_events(system, order["id"], "order.created", "order.cancelled")
    await system.wait_until_settled()
    await customer.place_order(product, 1)  # queued after them

    assert await database.stock_movements(system, product) == [("INITIAL", 5), ("DEDUCT", -1)]
    assert await database.order_status(system, order["id"]) == "CANCELLED"
    assert await reservation_state(system, order["id"]) == "CANCELLED"
    assert "REJECTED" not in str(await customer.get(f"/v1/orders/{order['id']}"))


async def test_an_order_cancelled_before_the_consumer_handles_it_holds_no_stock(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=5)
    body = {"items": [{"product_id": product, "quantity": 2}]}
    async with system.paused("consumer_service"):
        order = await customer.post("/v1/orders", body)
        await queues.audited_events(system, order["id"], "order.created")
        await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)
    await system.wait_until_settled()
    assert await database.stock(system, product) == 5
    assert await database.order_status(system, order["id"]) == "CANCELLED"


async def test_cancelling_a_confirmed_order_restores_its_stock_once(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=5)
    order = await customer.place_order(product, 2)
    assert order["status"] == "CONFIRMED"

    first = await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)
    await system.wait_until_settled()
    again = await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)

    assert first["status"] == again["status"] == "CANCELLED"
    (event,) = await system.orders.rows(
        "SELECT id::text, body FROM outbox WHERE order_id = $1 AND type = 'order.cancelled'",
        order["id"],
    )
    await deliver(system.broker, event["body"], event["id"])
    await customer.place_order(product, 1)  # queued after it
    assert await database.stock_movements(system, product) == [
        ("INITIAL", 5),
        ("DEDUCT", -2),
        ("RESTORE", 2),
        ("DEDUCT", -1),
    ]
    shown = await customer.get(f"/v1/orders/{order['id']}")
    assert [change["status"] for change in shown["history"]] == [
        "PENDING",
        "CONFIRMED",
        "CANCELLED",
    ]


async def test_a_rejected_order_cannot_be_cancelled(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=5)
    body = {"items": [{"product_id": product, "quantity": 5}]}
    async with system.paused("consumer_service"):
        first = await customer.post("/v1/orders", body)
        second = await customer.post("/v1/orders", body)
    await system.wait_until_settled()
    assert await database.order_status(system, first["id"]) == "CONFIRMED"
    assert await database.order_status(system, second["id"]) == "REJECTED"
    async with system.unchanged():
        response = await customer.call("POST", f"/v1/orders/{second['id']}/cancel")
        assert problem(response) == (409, "not_cancellable")
        assert response.json()["metadata"] == {"status": "REJECTED"}


async def test_an_administrator_can_cancel_the_order_of_a_customer(
    admin: ApiClient, customer: ApiClient
) -> None:
    order = await customer.place_order(await admin.create_product())
    cancelled = await admin.post(f"/v1/orders/{order['id']}/cancel", status=200)
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["user_id"] == customer.user_id
