"""A first order, followed through all databases and queues."""

from datetime import datetime

from tests.support.api_client import PASSWORD, ApiClient
from tests.support.system import System
from tests.system import database, queues


async def test_a_new_user_registers_logs_in_reads_the_catalogue_and_orders(
    system: System, anonymous: ApiClient
) -> None:
    account = {"email": "Grace@Example.com ", "password": PASSWORD, "name": "Grace Hopper"}
    user = await anonymous.post("/v1/auth/register", account)
    assert (user["email"], user["name"], user["role"]) == (
        "grace@example.com",
        "Grace Hopper",
        "customer",
    )
    grace = await anonymous.log_in("grace@example.com", PASSWORD, user["id"])
    assert (await grace.get("/v1/users/me"))["id"] == user["id"]

    catalogue = (await grace.get("/v1/products", query="laptop", page_size=100))["products"]
    laptop = next(product for product in catalogue if product["id"] == 101)
    price, before = laptop["price"], laptop["stock"]

    order = await grace.place_order(101, 2)

    assert order["status"] == "CONFIRMED"
    assert order["user_id"] == user["id"]
    assert order["items"][0]["unit_price"] == price
    assert await grace.get(f"/v1/orders/{order['id']}") == order
    assert (await grace.get("/v1/products/101"))["stock"] == before - 2
    stored = await system.users.rows("SELECT * FROM users WHERE id = $1", user["id"])
    assert stored[0]["password_hash"].startswith("$argon2id$")


async def test_an_order_is_stored_in_every_table(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    product = await admin.create_product(stock=10, price="12.50")

    order = await customer.place_order(product, 3)

    (row,) = await system.orders.rows("SELECT * FROM orders WHERE id = $1", order["id"])
    assert (row["user_id"], row["status"], row["total_cents"]) == (
        customer.user_id,
        "CONFIRMED",
        3_750,
    )
    (item,) = await system.orders.rows("SELECT * FROM order_items WHERE order_id = $1", order["id"])
    assert (item["product_id"], item["quantity"], item["unit_price_cents"]) == (product, 3, 1_250)
    history = await system.orders.rows(
        "SELECT status FROM order_status_history WHERE order_id = $1 ORDER BY changed_at",
        order["id"],
    )
    assert [change["status"] for change in history] == ["PENDING", "CONFIRMED"]
    assert [change["status"] for change in order["history"]] == ["PENDING", "CONFIRMED"]
    await system.wait_until_settled()
    sent = await system.orders.rows(
        "SELECT type FROM outbox WHERE order_id = $1 AND sent_at IS NOT NULL ORDER BY id",
        order["id"],
    )
    assert [event["type"] for event in sent] == ["order.created", "order.confirmed"]
    (deducted,) = await system.inventory.rows(
        "SELECT product_id, kind, delta FROM stock_movements WHERE order_id = $1", order["id"]
    )
    assert deducted == {"product_id": product, "kind": "DEDUCT", "delta": -3}
    assert await database.stock_movements(system, product) == [("INITIAL", 10), ("DEDUCT", -3)]
    assert await database.stock(system, product) == 7


async def test_the_events_of_an_order_are_readable_on_the_management_page(
    system: System, admin: ApiClient, customer: ApiClient
) -> None:
    order = await customer.place_order(await admin.create_product(price="12.50"), 3)

    created, confirmed = await queues.audited_events(
        system, order["id"], "order.created", "order.confirmed"
    )

    outbox = await system.orders.rows(
        "SELECT id::text FROM outbox WHERE order_id = $1 ORDER BY id", order["id"]
    )
    traces = set()
    for message, row, kind in zip(
        (created, confirmed), outbox, ("order.created", "order.confirmed"), strict=True
    ):
        event, properties = queues.cloud_event(message), message["properties"]
        assert message["exchange"] == "order.events"
        assert message["routing_key"] == event["type"] == properties["type"] == kind
        assert properties["message_id"] == event["id"] == row["id"]
        assert properties["content_type"] == "application/cloudevents+json"
        assert properties["delivery_mode"] == 2
        assert event["specversion"] == "1.0"
        assert event["source"] == "/order-service"
        assert event["subject"] == event["data"]["order_id"] == order["id"]
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
        traces.add(properties["headers"]["traceparent"].split("-")[1])
    assert len(traces) == 1
    data = queues.cloud_event(created)["data"]
    assert data["total_cents"] == 3_750
    assert data["items"] == [
        {
            "product_id": order["items"][0]["product_id"],
            "name": "thing",
            "quantity": 3,
            "unit_price_cents": 1_250,
        }
    ]
