"""The promises I1 to I8, checked in the databases and queues themselves once nothing is under way.

Every check gives the breaches it found as sentences that begin with the promise's number.
"""

import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from producer_service.topology import AUDIT_LENGTH
from proto.events import AUDIT_QUEUE, DEAD_LETTER_QUEUE
from tests.faults import queues
from tests.faults.harness import RECOVERY_SECONDS, Shop
from tests.faults.load import Load
from tests.support.waiting import eventually

_SHOWN = 5

_PENDING = "SELECT id::text FROM orders WHERE status NOT IN ('CONFIRMED','REJECTED','CANCELLED')"
_UNANSWERED = "SELECT id::text, status FROM orders WHERE next_offer_at IS NOT NULL"
_UNSENT = "SELECT id::text, type, last_error FROM outbox WHERE sent_at IS NULL"
_EVENTS = "SELECT id::text, order_id::text, type FROM outbox"
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


async def broken(
    shop: Shop, load: Load, within: float = RECOVERY_SECONDS, *, audited: bool = True
) -> list[str]:
    """The breaches after a fault, from whose end the system has `within` seconds to recover.

    `audited`: whether the audit queue, which is on one node only, was there all the time.
    """
    with suppress(AssertionError):  # what is left is found and named below
        await settled(shop, within)
    return [
        *await _stock_is_never_negative(shop),
        *await _every_order_is_settled(shop, load, within),
        *await _the_accounts_balance(shop),
        *await _every_event_arrives(shop, within, audited=audited),
        *await _nothing_is_applied_twice(shop, load),
        *await _a_key_is_one_order(shop, load),
        *load.false_answers,
    ]


async def settled(shop: Shop, within: float = RECOVERY_SECONDS) -> None:
    """Return once every order is settled and every event was published and handled."""

    async def outstanding() -> dict[str, int]:
        (found,) = await shop.orders.rows(
            "SELECT count(*) FILTER (WHERE status = 'PENDING') AS pending,"
            " count(*) FILTER (WHERE next_offer_at IS NOT NULL) AS unanswered,"
            " (SELECT count(*) FROM outbox WHERE sent_at IS NULL) AS unsent FROM orders"
        )
        return found

    started = time.monotonic()
    await eventually(outstanding, lambda found: not any(found.values()), within=within)
    # Deliveries that come again change nothing that could be seen above, or so it is claimed: the
    # last message of the queue is known to be handled once it lies among the dead.
    last = str(uuid.uuid4())
    await queues.deliver(shop.broker, b"the last one", last)

    async def handled() -> bool:
        return last in await queues.message_ids(shop.broker, DEAD_LETTER_QUEUE)

    await eventually(handled, within=max(5.0, started + within - time.monotonic()))


async def _stock_is_never_negative(shop: Shop) -> list[str]:
    return _told("I1 stock is negative", await shop.inventory.rows(_NEGATIVE))


async def _every_order_is_settled(shop: Shop, load: Load, within: float) -> list[str]:
    stored = {row["id"]: row for row in await shop.orders.rows(_ORDERS)}
    lost = [order for order in load.accepted.values() if order not in stored]
    strangers = [
        (order, key)
        for (user_id, key), order in load.accepted.items()
        if order in stored
        and (stored[order]["user_id"], stored[order]["idempotency_key"]) != (user_id, key)
    ]
    uncancelled = [
        order
        for order in load.cancelled
        if order not in stored or stored[order]["status"] != "CANCELLED"
    ]
    load.lost = len(lost)
    return [
        *_told("I2 an accepted order is gone", lost),
        *_told("I8 an order is another's", strangers),
        *_told("I7 a cancellation was answered and is not stored", uncancelled),
        *_told(f"I2 not settled within {within:g} s", await shop.orders.rows(_PENDING)),
        *_told(f"I2 unanswered after {within:g} s", await shop.orders.rows(_UNANSWERED)),
    ]


async def _the_accounts_balance(shop: Shop) -> list[str]:
    unbalanced = [
        row
        for row in await shop.inventory.rows(_UNBALANCED)
        if row["initial"] + row["adjusted"] != row["stock"] + row["deducted"] - row["restored"]
    ]
    held = _quantities(await shop.inventory.rows(_HELD))
    sold = _quantities(await shop.orders.rows(_SOLD))
    return [
        *_told("I3 initial + adjustments <> stock + deducted - restored", unbalanced),
        *_told("I3 stock is held for no confirmed order", sorted(held - sold)),
        *_told("I3 a confirmed order holds no stock", sorted(sold - held)),
    ]


async def _every_event_arrives(shop: Shop, within: float, *, audited: bool) -> list[str]:
    events = await shop.orders.rows(_EVENTS)
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
    breaches = [
        *_told(f"I4 not published within {within:g} s", await shop.orders.rows(_UNSENT)),
        *_told("I4 an event is neither in the ledger nor a dead letter", undelivered),
    ]
    copies = await queues.lying_in(shop.broker, AUDIT_QUEUE)
    if audited and len(copies) < AUDIT_LENGTH:  # once it is full, it drops the oldest
        ids = {letter.message_id for letter in copies}
        unseen = [event for event in events if event["id"] not in ids]
        breaches += _told("I4 an event never was in the broker", unseen)
    return breaches


def _holds(state: str | None) -> bool:
    return state in (None, "DEDUCTED")


async def _nothing_is_applied_twice(shop: Shop, load: Load) -> list[str]:
    moved_twice = await shop.inventory.rows(_APPLIED_TWICE)
    load.doubled = len(moved_twice) + len(load.answered_twice)
    return [
        *_told("I5 stock moved twice", moved_twice),
        *_told("I5 a settlement was told twice", await shop.orders.rows(_CREATED_TWICE)),
        *_told("I5 an order has two outcomes", await shop.orders.rows(_TWO_OUTCOMES)),
    ]


async def _a_key_is_one_order(shop: Shop, load: Load) -> list[str]:
    return [
        *_told("I6 a key is two orders", await shop.orders.rows(_KEY_TWICE)),
        *_told("I6 a key was answered with two orders", load.answered_twice),
    ]


def _quantities(rows: Iterable[dict[str, Any]]) -> set[tuple[str, int, int]]:
    return {(row["order_id"], row["product_id"], int(row["quantity"])) for row in rows}


def _told(breach: str, found: Iterable[object]) -> list[str]:
    found = list(found)
    if not found:
        return []
    shown = "; ".join(str(each) for each in found[:_SHOWN])
    return [f"{breach}: {len(found)}, such as {shown}"]
