"""The checks that run with the service: what is late, and the newest orders."""

import asyncio
import uuid

import pytest

from order_service.clients import open_inventory_channel
from order_service.consistency.clients import ReservationClient
from order_service.consistency.monitor import ContinuousChecks
from service_kit.consistency import Finding
from service_kit.errors import Unavailable
from tests.service.orders.shop import Shop, execute, one_of_each, violations
from tests.support.waiting import eventually, free_port

GRACE = 0.2


@pytest.fixture
def checks(shop: Shop, reservations: ReservationClient) -> ContinuousChecks:
    return ContinuousChecks(
        shop.orders.engine, reservations, grace_seconds=GRACE, settling_seconds=0
    )


async def test_an_order_is_late_once_a_younger_one_was_settled_some_time_ago(
    shop: Shop, checks: ContinuousChecks
) -> None:
    late = await shop.placed()
    await shop.settled()
    (found,) = await eventually(checks.late_orders)
    assert found.subject == f"order {late}"
    await shop.handled(late)
    assert await checks.late_orders() == []


async def test_a_cancelled_order_is_late_while_its_stock_is_not_restored(
    shop: Shop, checks: ContinuousChecks
) -> None:
    late = await shop.settled()
    await shop.cancel(late)
    await shop.settled()
    (found,) = await eventually(checks.late_orders)
    assert found.subject == f"order {late}"
    await shop.released(late)
    assert await checks.late_orders() == []


async def test_while_nothing_gets_through_nothing_is_late(
    shop: Shop, checks: ContinuousChecks
) -> None:
    """As when the broker is unavailable for long: customers wait, and nothing is lost."""
    await shop.settled()
    waiting = [await shop.placed() for _ in range(3)]
    older = "UPDATE {table} SET {column} = {column} - interval '60 seconds'"
    for table, column in (
        ("orders", "updated_at"),
        ("orders", "created_at"),
        ("outbox", "created_at"),
    ):
        await execute(shop.orders.engine, older.format(table=table, column=column))
    assert await checks.late_orders() == []
    assert await checks.late_events() == []
    for order_id in waiting:
        await shop.handled(order_id)
        assert await checks.late_orders() == []


async def test_an_event_is_late_once_a_younger_one_was_published_some_time_ago(
    shop: Shop, checks: ContinuousChecks
) -> None:
    order_id = await shop.placed()
    await shop.placed()
    refused = "UPDATE outbox SET last_error = 'NACKED' WHERE order_id = :id"
    await execute(shop.orders.engine, refused, id=uuid.UUID(order_id))
    sent = "UPDATE outbox SET sent_at = now() WHERE order_id <> :id"
    await execute(shop.orders.engine, sent, id=uuid.UUID(order_id))
    (found,) = await eventually(checks.late_events)
    assert found.detail == f"order.created of order {order_id}: NACKED"
    await execute(shop.orders.engine, "UPDATE outbox SET sent_at = now()")
    assert await checks.late_events() == []


async def test_each_run_compares_the_orders_since_the_last_one_with_inventory(
    shop: Shop, checks: ContinuousChecks
) -> None:
    await one_of_each(shop)
    assert await checks.unequal_orders() == []
    order_id = await shop.settled()
    change = "UPDATE stock_movements SET delta = delta - :more WHERE order_id = :id"
    await execute(shop.inventory.engine, change, more=1, id=uuid.UUID(order_id))
    for _ in range(2):
        (found,) = await checks.unequal_orders()
        assert found.subject == f"order {order_id}"
    await execute(shop.inventory.engine, change, more=-1, id=uuid.UUID(order_id))
    assert await checks.unequal_orders() == []


async def test_orders_cannot_be_compared_while_inventory_is_unavailable(shop: Shop) -> None:
    async with open_inventory_channel(f"127.0.0.1:{free_port()}") as channel:
        checks = ContinuousChecks(shop.orders.engine, ReservationClient(channel), GRACE, 0)
        await shop.settled()
        with pytest.raises(Unavailable):
            await checks.unequal_orders()


async def test_checks_of_unfinished_orders_find_nothing(
    shop: Shop, reservations: ReservationClient
) -> None:
    finished = asyncio.Event()
    found: list[Finding] = []

    async def shopper(number: int) -> None:
        for _ in range(12):
            order_id = await shop.placed(1)
            if number % 3 == 0:
                await asyncio.gather(shop.handled(order_id, 1), shop.cancel(order_id))
                await shop.released(order_id)
            elif number % 3 == 1:
                await shop.handled(order_id, 1)
                await shop.cancel(order_id)
                await shop.released(order_id)
            else:
                await shop.handled(order_id, 1)

    async def run_incremental_checks() -> int:
        runs = 0
        checks = ContinuousChecks(
            shop.orders.engine, reservations, grace_seconds=30, settling_seconds=0
        )
        while not finished.is_set():
            for each in checks.checks().values():
                found.extend(await each())
            runs += 1
        return runs

    incremental = asyncio.create_task(run_incremental_checks())
    whole = asyncio.create_task(violations(shop, reservations))
    await asyncio.gather(*(shopper(number) for number in range(9)))
    finished.set()
    assert await incremental > 3
    assert found == []
    assert await whole == set()
    assert await violations(shop, reservations) == set()
