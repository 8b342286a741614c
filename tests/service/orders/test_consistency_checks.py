"""The checks of everything: orders, their events, and what inventory deducted."""

import uuid

import pytest
from uuid_utils.compat import uuid7

from order_service.consistency.clients import ReservationClient
from proto import inventory_pb2 as stock_pb
from tests.service.orders.shop import Shop, execute, one_of_each, violations
from tests.support.cli import CommandResult, run_command, url_of
from tests.support.waiting import free_port


async def test_orders_in_every_state_are_consistent(
    shop: Shop, reservations: ReservationClient
) -> None:
    await one_of_each(shop)
    assert await violations(shop, reservations) == set()


VIOLATIONS = {
    "a confirmation without a deduction": (
        "orders",
        "UPDATE orders SET status = 'CONFIRMED', next_republish_at = NULL WHERE id = :pending",
        "I3 order {pending}: CONFIRMED, but inventory decided nothing for it",
    ),
    "a rejected order that was confirmed": (
        "orders",
        "UPDATE orders SET status = 'CONFIRMED' WHERE id = :rejected",
        "I3 order {rejected}: CONFIRMED (900 of product {tea}), inventory: REJECTED (nothing)",
    ),
    "a deduction of another quantity": (
        "inventory",
        "UPDATE stock_movements SET delta = -3 WHERE order_id = :confirmed",
        (
            "I3 order {confirmed}: CONFIRMED (2 of product {tea}),"
            " inventory: DEDUCTED (3 of product {tea})"
        ),
    ),
    "a deduction of twice as much": (
        "inventory",
        "UPDATE stock_movements SET delta = 2 * delta WHERE order_id = :confirmed",
        (
            "I3 order {confirmed}: CONFIRMED (2 of product {tea}),"
            " inventory: DEDUCTED (4 of product {tea})"
        ),
    ),
    "stock that a cancelled order still has": (
        "orders",
        "UPDATE orders SET next_republish_at = NULL WHERE id = :leaving",
        "I3 order {leaving}: CANCELLED (nothing), inventory: DEDUCTED (2 of product {tea})",
    ),
    "an event that was lost": (
        "orders",
        "DELETE FROM outbox WHERE order_id = :pending",
        "I4 order {pending}: became PENDING without an event",
    ),
    "an outcome whose event was lost": (
        "orders",
        "DELETE FROM outbox WHERE order_id = :rejected AND type = 'order.rejected'",
        "I4 order {rejected}: became REJECTED without an event",
    ),
    "an outcome published twice": (
        "orders",
        (
            "INSERT INTO outbox (id, order_id, type, body)"
            " SELECT gen_random_uuid(), order_id, type, body FROM outbox"
            " WHERE order_id = :confirmed AND type = 'order.confirmed'"
        ),
        "I5 order {confirmed}: 2 times order.confirmed, order.confirmed",
    ),
    "two outcomes": (
        "orders",
        "INSERT INTO order_status_history VALUES (:confirmed, 'REJECTED', now())",
        "I5 order {confirmed}: order.confirmed, order.rejected",
    ),
    "a total that is not the sum of the items": (
        "orders",
        "UPDATE orders SET total_cents = 499 WHERE id = :confirmed",
        "I3 order {confirmed}: total 499 cents, items 500",
    ),
    "an order without items": (
        "orders",
        "DELETE FROM order_items WHERE order_id = :confirmed",
        "I3 order {confirmed}: no items",
    ),
    "a status that is not in the history": (
        "orders",
        "DELETE FROM order_status_history WHERE order_id = :returned AND status = 'CANCELLED'",
        "I3 order {returned}: CANCELLED is not in its history",
    ),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_violation_is_found_and_named(
    shop: Shop, reservations: ReservationClient, violation: str
) -> None:
    placed = await one_of_each(shop)
    where, statement, expected = VIOLATIONS[violation]
    used = {name: uuid.UUID(id_) for name, id_ in placed.items() if f":{name}" in statement}
    await execute((shop.orders if where == "orders" else shop.inventory).engine, statement, **used)
    assert expected.format(tea=shop.tea, **placed) in await violations(shop, reservations)


async def test_stock_deducted_for_an_unknown_order_is_found(
    shop: Shop, reservations: ReservationClient
) -> None:
    unknown = str(uuid7())
    update = stock_pb.StockUpdate(
        order_id=unknown,
        kind=stock_pb.STOCK_UPDATE_KIND_DEDUCT,
        items=[stock_pb.StockItem(product_id=shop.tea, quantity=1)],
    )
    await shop.update(update)
    assert await violations(shop, reservations) == set()  # the consumer is about to restore it
    (found,) = await violations(shop, reservations, grace=0)
    assert found.startswith(f"I3 order {unknown}: does not exist, but has stock since ")


async def test_late_orders_and_events_are_found(
    shop: Shop, reservations: ReservationClient
) -> None:
    order_id = await shop.placed()
    assert await violations(shop, reservations) == set()
    await execute(
        shop.orders.engine,
        "UPDATE orders SET updated_at = updated_at - interval '40 seconds'",
    )
    await execute(
        shop.orders.engine,
        "UPDATE outbox SET created_at = created_at - interval '40 seconds',"
        " last_error = 'UNROUTABLE: no queue'",
    )
    order, event = sorted(await violations(shop, reservations))
    assert order.startswith(
        f"I2 order {order_id}: PENDING for 40 s, its event is not published: UNROUTABLE"
    )
    assert event.startswith("I4 event ")
    assert f"order.created of order {order_id} is not published after 40 s: UNROUTABLE" in event


async def check_command(shop: Shop, *arguments: str, **environment: str) -> CommandResult:
    settings = {
        "ORDER_DATABASE_URL": url_of(shop.orders.engine),
        "INVENTORY_SERVICE_ADDR": shop.inventory.address,
    }
    return await run_command("order_service", "check", *arguments, **(settings | environment))


async def test_the_command_exits_with_0_without_findings_and_with_1_and_tables_otherwise(
    shop: Shop,
) -> None:
    placed = await one_of_each(shop)
    done = await check_command(shop)
    assert done.code == 0, done
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["0"] * 7
    await execute(shop.orders.engine, "UPDATE orders SET total_cents = 1")
    done = await check_command(shop, "--grace", "0")
    assert done.code == 1
    assert done.line("I3  order " + placed["confirmed"]).endswith("total 1 cents, items 500")
    assert "I2  order " + placed["pending"] in done.stdout


async def test_the_command_exits_with_2_if_inventory_is_unavailable(shop: Shop) -> None:
    await shop.settled()
    done = await check_command(shop, INVENTORY_SERVICE_ADDR=f"127.0.0.1:{free_port()}")
    assert done.code == 2
    assert done.stderr.startswith("error: ")
