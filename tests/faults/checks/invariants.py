"""The promises I1 to I8, checked in databases and queues once no work is in progress."""

import time
import uuid
from contextlib import suppress

from proto.events import DEAD_LETTER_QUEUE, INVENTORY_QUEUE
from tests.faults.buyers import Buyers
from tests.faults.checks import events, orders, stock, totals
from tests.faults.checks.violations import (
    INCONSISTENT,
    LOST,
    MOVED_TWICE,
    QUEUE_NOT_DRAINED,
    TWO_ORDERS,
    TWO_RESPONSES,
    Violations,
)
from tests.faults.shop.shop import Shop
from tests.support import queues
from tests.support.waiting import eventually

RECOVERY_SECONDS = 30.0
"""Every accepted order is settled within this time after the end of a fault."""
_SHOWN = 5
_REPEATED_ORDERS = 5
_SETTLE_SECONDS = 5.0
"""The time that the newest order has to be settled, however long ago the fault ended."""
_DRAIN_SECONDS = 15.0

_DUPLICATES = (MOVED_TWICE, TWO_ORDERS, TWO_RESPONSES)

_OUTSTANDING = """
SELECT count(*) FILTER (WHERE status = 'PENDING') AS pending,
    count(*) FILTER (WHERE next_republish_at IS NOT NULL) AS unanswered,
    (SELECT count(*) FROM outbox WHERE sent_at IS NULL) AS unsent
FROM orders
"""


async def violations_after(
    shop: Shop,
    buyers: Buyers,
    healed_at: float,
    *,
    faults: int = 1,
    audit_queue_available: bool = True,
) -> list[str]:
    """The violations after this number of faults, counted for the report of the run.

    `healed_at` is the end of the faults by `time.monotonic()`: the system has 30 s from then to
    recover. Without `audit_queue_available` (the queue is on one node only) its copies of events
    are not checked.
    """
    deadline = healed_at + RECOVERY_SECONDS
    found = await find_violations(
        shop, buyers, deadline, audit_queue_available=audit_queue_available
    )
    totals.COUNTS["faults"] += faults
    totals.COUNTS["orders sent"] += buyers.orders_sent - buyers.counted[0]
    totals.COUNTS["orders accepted"] += len(buyers.accepted) - buyers.counted[1]
    buyers.counted = buyers.orders_sent, len(buyers.accepted)
    totals.COUNTS["lost"] += len(found.get(LOST, ()))
    totals.COUNTS["duplicated"] += sum(len(found.get(each, ())) for each in _DUPLICATES)
    totals.COUNTS["false alarms"] += len(found.get(INCONSISTENT, ()))
    return [
        f"{violation}: {len(cases)}, such as {'; '.join(cases[:_SHOWN])}"
        for violation, cases in found.items()
    ]


async def find_violations(
    shop: Shop, buyers: Buyers, deadline: float, *, audit_queue_available: bool = True
) -> Violations:
    """The violations that were not reported before; by `deadline` all orders must be settled."""
    await buyers.repeat_orders(_REPEATED_ORDERS)
    deadline = max(deadline, time.monotonic() + _SETTLE_SECONDS)
    with suppress(AssertionError):  # what is unsettled is a violation below
        await wait_until_settled(shop, deadline)
    found: Violations = {
        **await orders.unsettled(shop),
        **await stock.negative(shop),
        INCONSISTENT: shop.new_inconsistencies(),
        **buyers.violations,
        **await orders.wrong_responses(shop, buyers),
        **await orders.wrong_orders(shop, buyers),
    }
    async with shop.single_replica("consumer_service"):
        try:
            await _drain(shop)
        except AssertionError as error:
            found[QUEUE_NOT_DRAINED] = [f"in {buyers.case}: {error}"]
        else:  # no work is in progress that would change what these checks read
            found |= await stock.unbalanced(shop)
            found |= await events.missing(shop, audit_queue_available=audit_queue_available)
            found |= await stock.applied_twice(shop)
            found |= await orders.settled_twice(shop)
    return buyers.new_violations(found)


async def wait_until_settled(shop: Shop, deadline: float) -> None:
    """Return once every order is settled and every event was published."""

    async def outstanding() -> dict[str, int]:
        (counts,) = await shop.orders.rows(_OUTSTANDING)
        return counts

    within = deadline - time.monotonic()
    await eventually(outstanding, lambda counts: not any(counts.values()), within=within)


async def _drain(shop: Shop) -> None:
    """Return once the only consumer has handled everything that was delivered so far.

    Repeated deliveries must not change any row, so that no row shows when they are handled. An
    unreadable message is delivered after them; once it is a dead letter, they have been handled.
    """
    last = str(uuid.uuid4())
    await queues.deliver(shop.broker, b"the last message", last)

    async def progress() -> tuple[bool, int]:
        dead = await queues.message_ids(shop.broker, DEAD_LETTER_QUEUE)
        return last in dead, await queues.ready_count(shop.broker, INVENTORY_QUEUE)

    await eventually(progress, lambda found: found == (True, 0), within=_DRAIN_SECONDS)
