"""The full checks: what must hold in the orders' data, and between orders and inventory.

`monitor` has the continuous checks, which run with the service.
"""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from order_service.consistency import repository
from order_service.consistency.clients import ReservationClient
from service_kit.consistency import Check, Finding
from service_kit.postgres.engine import autocommit, snapshot

ORDERS_SETTLED = Check("I2", "orders_settled", "every order is settled in time")
ORDERS_COMPLETE = Check(
    "I3", "orders_complete", "an order has its items, its total and its history"
)
ORDERS_EQUAL_RESERVATIONS = Check(
    "I3",
    "orders_equal_reservations",
    "stock is deducted for what a confirmed order has, and for no other",
)
NO_UNKNOWN_ORDERS = Check(
    "I3", "no_stock_for_unknown_orders", "stock is deducted only for orders that exist"
)
EVENTS_PUBLISHED = Check("I4", "events_published", "every event is published in time")
CHANGES_HAVE_EVENTS = Check("I4", "changes_have_events", "every change of an order has its event")
ONE_OUTCOME = Check("I5", "one_outcome", "an order has one outcome, published once")

_WITHIN_ORDERS = {
    ORDERS_SETTLED: repository.UNSETTLED_ORDERS,
    ORDERS_COMPLETE: repository.UNBALANCED_ORDERS,
    EVENTS_PUBLISHED: repository.UNPUBLISHED_EVENTS,
    CHANGES_HAVE_EVENTS: repository.CHANGES_WITHOUT_EVENT,
    ONE_OUTCOME: repository.SEVERAL_OUTCOMES,
}

_PAGE_SIZE = 500

Advance = Callable[[int], None]


async def count_orders(engine: AsyncEngine) -> int:
    """How many orders there are to compare."""
    async with autocommit(engine) as connection:
        return await repository.count_orders(connection)


async def run_checks(
    engine: AsyncEngine,
    inventory: ReservationClient,
    *,
    grace_seconds: float,
    kept_seconds: float,
    advance: Advance,
) -> dict[Check, Sequence[Finding]]:
    """The violations of each check; `advance` gets the number of orders compared since its last.

    Sent events are kept for `kept_seconds`; what is younger than `grace_seconds` is not yet late.
    """
    findings: dict[Check, Sequence[Finding]] = {}
    async with snapshot(engine) as connection:
        for check, statement in _WITHIN_ORDERS.items():
            findings[check] = await repository.find_violations(
                connection, statement, grace_seconds=grace_seconds, kept_seconds=kept_seconds
            )
    unequal: list[Finding] = []
    async for ids in _pages(engine):
        unequal += await compare(engine, inventory, ids)
        advance(len(ids))
    findings[ORDERS_EQUAL_RESERVATIONS] = unequal
    findings[NO_UNKNOWN_ORDERS] = await _unknown_orders(engine, inventory, grace_seconds)
    return findings


async def compare(
    engine: AsyncEngine, inventory: ReservationClient, order_ids: Collection[uuid.UUID]
) -> list[Finding]:
    """The orders among these that disagree with what inventory deducted for them.

    Exact while both services run: inventory decides before an order is settled, and restores after
    it was cancelled. So what disagrees, with the order unchanged afterwards, is a violation.
    """
    async with autocommit(engine) as connection:
        orders = await repository.stored_orders(connection, order_ids)
    reservations = await inventory.reservations(order_ids)
    suspects = {
        order_id: detail
        for order_id, order in orders.items()
        if (detail := order.disagreement(reservations.get(order_id)))
    }
    if not suspects:
        return []
    async with autocommit(engine) as connection:
        again = await repository.stored_orders(connection, suspects)
    return [
        Finding(f"order {order_id}", detail)
        for order_id, detail in suspects.items()
        if again.get(order_id) == orders[order_id]
    ]


async def _pages(engine: AsyncEngine) -> AsyncIterator[list[uuid.UUID]]:
    after = uuid.UUID(int=0)
    while True:
        async with autocommit(engine) as connection:
            ids = await repository.ids_after(connection, after, _PAGE_SIZE)
        if not ids:
            return
        yield ids
        after = ids[-1]


async def _unknown_orders(
    engine: AsyncEngine, inventory: ReservationClient, grace_seconds: float
) -> list[Finding]:
    """Stock deducted over `grace_seconds` ago for orders that do not exist."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=grace_seconds)
    findings = []
    async for page in inventory.deducted():
        async with autocommit(engine) as connection:
            existing = await repository.existing_ids(connection, page)
        findings += [
            Finding(f"order {order_id}", f"does not exist, but has stock since {found.decided_at}")
            for order_id, found in page.items()
            if order_id not in existing and found.decided_at < before
        ]
    return findings
