"""Cancelling an order before, while and after its stock is taken."""

from tests.support.system import System
from tests.support.waiting import eventually
from tests.system import ledger, queues
from tests.system.shop import Caller, problem


async def decided(system: System, order_id: str) -> str | None:
    """What inventory decided for an order, once it has."""

    async def look() -> str | None:
        state: str | None = await system.inventory.value(
            "SELECT state FROM reservations WHERE order_id = $1", order_id
        )
        return state

    return await eventually(look)


async def test_a_cancellation_that_overtakes_its_order_leaves_no_stock_taken(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=5)
    body = {"items": [{"product_id": product, "quantity": 2}]}
    async with system.paused("producer_service"):
        order = await customer.post("/v1/orders", body)
        cancelled = await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)
        assert (order["status"], cancelled["status"]) == ("PENDING", "CANCELLED")
        (event,) = await system.orders.rows(
            "SELECT id::text, body FROM outbox WHERE order_id = $1 AND type = 'order.cancelled'",
            order["id"],
        )
        await queues.deliver(system, event["body"], event["id"])
        assert await decided(system, order["id"]) == "CANCELLED"

    # Now the producer goes on: order.created comes after its cancellation, which comes again.
    await queues.audited(system, order["id"], "order.created", "order.cancelled")
    await system.at_rest()
    await customer.order(product, 1)  # queued behind them

    assert await ledger.movements(system, product) == [("INITIAL", 5), ("DEDUCT", -1)]
    assert await ledger.status(system, order["id"]) == "CANCELLED"
    assert await decided(system, order["id"]) == "CANCELLED"
    assert "REJECTED" not in str(await customer.get(f"/v1/orders/{order['id']}"))


async def test_an_order_cancelled_while_it_waits_for_the_consumer_gives_back_what_it_took(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=5)
    body = {"items": [{"product_id": product, "quantity": 2}]}
    async with system.paused("consumer_service"):
        order = await customer.post("/v1/orders", body)
        await queues.audited(system, order["id"], "order.created")
        await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)
    await system.at_rest()
    assert await ledger.stock(system, product) == 5
    assert await ledger.status(system, order["id"]) == "CANCELLED"


async def test_cancelling_a_confirmed_order_gives_its_stock_back_once(
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=5)
    order = await customer.order(product, 2)
    assert order["status"] == "CONFIRMED"

    first = await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)
    await system.at_rest()
    again = await customer.post(f"/v1/orders/{order['id']}/cancel", status=200)

    assert first["status"] == again["status"] == "CANCELLED"
    (event,) = await system.orders.rows(
        "SELECT id::text, body FROM outbox WHERE order_id = $1 AND type = 'order.cancelled'",
        order["id"],
    )
    await queues.deliver(system, event["body"], event["id"])
    await customer.order(product, 1)  # queued behind it
    assert await ledger.movements(system, product) == [
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
    system: System, admin: Caller, customer: Caller
) -> None:
    product = await admin.product(stock=5)
    body = {"items": [{"product_id": product, "quantity": 5}]}
    async with system.paused("consumer_service"):
        first = await customer.post("/v1/orders", body)
        second = await customer.post("/v1/orders", body)
    await system.at_rest()
    assert await ledger.status(system, first["id"]) == "CONFIRMED"
    assert await ledger.status(system, second["id"]) == "REJECTED"
    async with system.unchanged():
        answer = await customer.call("POST", f"/v1/orders/{second['id']}/cancel")
        assert problem(answer) == (409, "not_cancellable")
        assert answer.json()["metadata"] == {"status": "REJECTED"}


async def test_an_administrator_cancels_for_a_customer(admin: Caller, customer: Caller) -> None:
    order = await customer.order(await admin.product())
    cancelled = await admin.post(f"/v1/orders/{order['id']}/cancel", status=200)
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["user_id"] == customer.user_id
