"""The promises I1 to I8, checked in the databases and queues themselves once nothing is under way.

Every check gives the breaches it found as sentences that begin with the promise's number.
"""

import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from producer_service.topology import AUDIT_LENGTH
from proto.events import AUDIT_QUEUE, DEAD_LETTER_QUEUE, INVENTORY_QUEUE
from tests.faults import queues, tally
from tests.faults.harness import RECOVERY_SECONDS, Shop
from tests.faults.load import Load
from tests.faults.promises import (
    ALARM,
    ANSWERED_TWICE,
    LOST,
    MOVED_TWICE,
    TWO_ORDERS,
    UNBALANCED,
    UNDELIVERED,
    UNFINISHED,
    UNSEEN,
    Breaches,
)
from tests.faults.store import Rows
from tests.support.waiting import eventually

_SHOWN = 5
_REPEATED = 5
_SETTLING_SECONDS = 5.0
"""What an order may take that was placed just before, however long ago the fault was."""
_QUEUE_SECONDS = 15.0

_DOUBLED = (MOVED_TWICE, TWO_ORDERS, ANSWERED_TWICE)

_PENDING = "SELECT id::text FROM orders WHERE status NOT IN ('CONFIRMED','REJECTED','CANCELLED')"
_UNANSWERED = "SELECT id::text, status FROM orders WHERE next_offer_at IS NOT NULL"
_UNSENT = "SELECT id::text, type FROM outbox WHERE sent_at IS NULL"
_EVENTS = "SELECT id::text, order_id::text, type, sent_at FROM outbox"
_CREATED_TWICE = """
SELECT order_id::text, type, count(*) FROM outbox
WHERE type IN ('order.confirmed', 'order.rejected')
GROUP BY order_id, type HAVING count(*) > 1
"""
_TWO_OUTCOMES = """
SELECT order_id::text FROM order_status_history WHERE status IN ('CONFIRMED', 'REJECTED')
GROUP BY order_id HAVING count(*) > 1
"""
_KEY_TWICE = """
SELECT user_id, idempotency_key FROM orders WHERE idempotency_key IS NOT NULL
GROUP BY user_id, idempotency_key HAVING count(*) > 1
"""
_NEGATIVE = "SELECT id, stock FROM products WHERE stock < 0"
_UNBALANCED = """
SELECT products.id, stock,
    coalesce(sum(delta) FILTER (WHERE kind = 'INITIAL'), 0) AS initial,
    coalesce(sum(delta) FILTER (WHERE kind = 'ADJUSTMENT'), 0) AS adjusted,
    coalesce(-sum(delta) FILTER (WHERE kind = 'DEDUCT'), 0) AS deducted,
    coalesce(sum(delta) FILTER (WHERE kind = 'RESTORE'), 0) AS restored
FROM products LEFT JOIN stock_movements ON product_id = products.id GROUP BY products.id
"""
_APPLIED_TWICE = """
SELECT order_id::text, product_id, kind, count(*) FROM stock_movements WHERE order_id IS NOT NULL
GROUP BY order_id, product_id, kind HAVING count(*) > 1
"""
_HELD = """
SELECT order_id::text, product_id, -sum(delta) AS quantity FROM stock_movements
WHERE order_id IS NOT NULL GROUP BY order_id, product_id HAVING sum(delta) <> 0
"""
_SOLD = """
SELECT order_id::text, product_id, sum(quantity) AS quantity
FROM order_items JOIN orders ON orders.id = order_id
WHERE status = 'CONFIRMED' GROUP BY order_id, product_id
"""
_RESERVATIONS = "SELECT order_id::text, state FROM reservations"
_ORDERS = "SELECT id::text, user_id, status, idempotency_key FROM orders"
_ORDERED = """
SELECT user_id, idempotency_key, product_id, sum(quantity) AS quantity
FROM orders JOIN order_items ON orders.id = order_id WHERE user_id = ANY($1)
GROUP BY user_id, idempotency_key, product_id
"""


async def broken(
    shop: Shop, load: Load, healed_at: float, *, faults: int = 1, audited: bool = True
) -> list[str]:
    """The breaches after so many faults, from whose end on the system had 30 s to recover.

    `healed_at`: when they ended, by `time.monotonic()`. `audited`: whether the audit queue, which
    is on one node only, was there all the time. What is found is counted for the report.
    """
    found = await breaches(shop, load, healed_at + RECOVERY_SECONDS, audited=audited)
    tally.TOTAL["faults"] += faults
    tally.TOTAL["orders sent"] += load.sent - load.counted[0]
    tally.TOTAL["orders accepted"] += len(load.accepted) - load.counted[1]
    load.counted = load.sent, len(load.accepted)
    tally.TOTAL["lost"] += len(found.get(LOST, ()))
    tally.TOTAL["doubled"] += sum(len(found.get(each, ())) for each in _DOUBLED)
    tally.TOTAL["audit alarms"] += len(found.get(ALARM, ()))
    return [
        f"{sentence}: {len(cases)}, such as {'; '.join(cases[:_SHOWN])}"
        for sentence, cases in found.items()
    ]


async def breaches(shop: Shop, load: Load, deadline: float, *, audited: bool = True) -> Breaches:
    """What is broken and was not told before, if all had to be settled at the deadline."""
    await load.ask_again(_REPEATED)
    deadline = max(deadline, time.monotonic() + _SETTLING_SECONDS)
    with suppress(AssertionError):  # what is left is named below
        await settled(shop, deadline)
    found: Breaches = {
        "I2 an order is not settled in time": _cases(await shop.orders.rows(_PENDING)),
        "I2 an order is unanswered": _cases(await shop.orders.rows(_UNANSWERED)),
        "I4 an event is not published in time": _cases(await shop.orders.rows(_UNSENT)),
        "I1 stock is negative": _cases(await shop.inventory.rows(_NEGATIVE)),
        ALARM: shop.alarms(),
        **load.false_answers,
        **await _what_was_answered_is_true(shop, load),
        **await _a_key_is_one_order(shop, load),
    }
    async with shop.alone("consumer_service"):
        try:
            await worked_off(shop)
        except AssertionError as error:
            found[UNFINISHED] = [f"in {load.row}: {error}"]
        else:  # nothing is under way any more that would change what these see
            found |= await _the_accounts_balance(shop)
            found |= await _every_event_arrives(shop, audited=audited)
            found |= await _nothing_is_applied_twice(shop)
    return load.news(found)


async def settled(shop: Shop, deadline: float) -> None:
    """Return once every order is settled and every event was published."""

    async def outstanding() -> dict[str, int]:
        (found,) = await shop.orders.rows(
            "SELECT count(*) FILTER (WHERE status = 'PENDING') AS pending,"
            " count(*) FILTER (WHERE next_offer_at IS NOT NULL) AS unanswered,"
            " (SELECT count(*) FROM outbox WHERE sent_at IS NULL) AS unsent FROM orders"
        )
        return found

    within = deadline - time.monotonic()
    await eventually(outstanding, lambda found: not any(found.values()), within=within)


async def worked_off(shop: Shop) -> None:
    """Return once the only consumer has handled all that was delivered so far.

    Deliveries that come again change nothing that could be seen, or so it is claimed: a last
    message, put behind them, is handled after them, and is known to be once it lies among the dead.
    """
    last = str(uuid.uuid4())
    await queues.deliver(shop.broker, b"the last one", last)

    async def left() -> tuple[bool, int]:
        dead = await queues.message_ids(shop.broker, DEAD_LETTER_QUEUE)
        return last in dead, await queues.waiting(shop.broker, INVENTORY_QUEUE)

    await eventually(left, lambda found: found == (True, 0), within=_QUEUE_SECONDS)


async def _what_was_answered_is_true(shop: Shop, load: Load) -> Breaches:
    stored = {row["id"]: row for row in await shop.orders.rows(_ORDERS)}
    strangers = [
        (order, key)
        for key, order in load.accepted.items()
        if order in stored and (stored[order]["user_id"], stored[order]["idempotency_key"]) != key
    ]
    uncancelled = [
        order
        for order in load.cancelled
        if order in stored and stored[order]["status"] != "CANCELLED"
    ]
    return {
        LOST: [order for order in load.accepted.values() if order not in stored],
        "I8 an order is another's": _cases(strangers),
        "I7 a cancellation was answered and is not stored": uncancelled,
    }


async def _a_key_is_one_order(shop: Shop, load: Load) -> Breaches:
    stored: dict[Any, dict[int, int]] = {}
    for row in await shop.orders.rows(_ORDERED, [buyer.user_id for buyer in load.buyers]):
        items = stored.setdefault((row["user_id"], row["idempotency_key"]), {})
        items[row["product_id"]] = int(row["quantity"])
    return {
        TWO_ORDERS: _cases(await shop.orders.rows(_KEY_TWICE)),
        "I6 an order is stored that nobody sent": _cases(stored.keys() - load.asked.keys()),
        "I6 an order is stored as it was not sent": [
            f"{key}: {items} for {load.asked[key]}"
            for key, items in stored.items()
            if items != load.asked.get(key, items)
        ],
    }


async def _the_accounts_balance(shop: Shop) -> Breaches:
    unbalanced = [
        f"product {row['id']} by {off}"
        for row in await shop.inventory.rows(_UNBALANCED)
        if (
            off := row["stock"]
            + row["deducted"]
            - row["restored"]
            - row["initial"]
            - row["adjusted"]
        )
    ]
    held = _quantities(await shop.inventory.rows(_HELD))
    sold = _quantities(await shop.orders.rows(_SOLD))
    return {
        UNBALANCED: unbalanced,
        "I3 stock is held for no confirmed order": _cases(sorted(held - sold)),
        "I3 a confirmed order holds no stock": _cases(sorted(sold - held)),
    }


async def _every_event_arrives(shop: Shop, *, audited: bool) -> Breaches:
    events = [row for row in await shop.orders.rows(_EVENTS) if row["sent_at"] is not None]
    decided = {row["order_id"]: row["state"] for row in await shop.inventory.rows(_RESERVATIONS)}
    dead = await queues.message_ids(shop.broker, DEAD_LETTER_QUEUE)
    undelivered = [
        event
        for event in events
        if event["id"] not in dead
        and (
            (event["type"] == "order.created" and event["order_id"] not in decided)
            or (event["type"] == "order.cancelled" and _holds(decided.get(event["order_id"])))
        )
    ]
    unseen = await _unseen(shop, events) if audited else []
    return {
        UNDELIVERED: _cases(f"{event['type']} {event['id']}" for event in undelivered),
        UNSEEN: _cases(event["id"] for event in unseen),
    }


def _holds(state: str | None) -> bool:
    return state in (None, "DEDUCTED")


async def _unseen(shop: Shop, events: Rows) -> Rows:
    """The events of which the audit queue has no copy although it still must have one."""
    copies = [copy.message_id for copy in await queues.queued_messages(shop.broker, AUDIT_QUEUE)]
    if len(copies) >= AUDIT_LENGTH:
        # It drops the oldest. What was sent after its first copy was published after that one.
        sent_at = {event["id"]: event["sent_at"] for event in events}
        events = [event for event in events if event["sent_at"] > sent_at[copies[0]]]
    present = set(copies)
    return [event for event in events if event["id"] not in present]


async def _nothing_is_applied_twice(shop: Shop) -> Breaches:
    return {
        MOVED_TWICE: _cases(await shop.inventory.rows(_APPLIED_TWICE)),
        "I5 a settlement was told twice": _cases(await shop.orders.rows(_CREATED_TWICE)),
        "I5 an order has two outcomes": _cases(await shop.orders.rows(_TWO_OUTCOMES)),
    }


def _quantities(rows: Rows) -> set[tuple[str, int, int]]:
    return {(row["order_id"], row["product_id"], int(row["quantity"])) for row in rows}


def _cases(found: Iterable[object]) -> list[str]:
    return [str(each) for each in found]
