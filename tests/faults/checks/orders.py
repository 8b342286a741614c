"""Orders: settled, stored as they were requested, and as responses said."""

from typing import Any

from tests.faults.buyers import Buyers
from tests.faults.checks.violations import LOST, TWO_ORDERS, Violations
from tests.faults.shop.shop import Shop

_PENDING = "SELECT id::text FROM orders WHERE status NOT IN ('CONFIRMED','REJECTED','CANCELLED')"
_UNANSWERED = "SELECT id::text, status FROM orders WHERE next_republish_at IS NOT NULL"
_UNSENT = "SELECT id::text, type FROM outbox WHERE sent_at IS NULL"
_ORDERS = "SELECT id::text, user_id, status, idempotency_key FROM orders"
_KEY_TWICE = """
SELECT user_id, idempotency_key FROM orders WHERE idempotency_key IS NOT NULL
GROUP BY user_id, idempotency_key HAVING count(*) > 1
"""
_ITEMS = """
SELECT user_id, idempotency_key, product_id, sum(quantity) AS quantity
FROM orders JOIN order_items ON orders.id = order_id WHERE user_id = ANY($1)
GROUP BY user_id, idempotency_key, product_id
"""
_SETTLED_TWICE = """
SELECT order_id::text, type, count(*) FROM outbox
WHERE type IN ('order.confirmed', 'order.rejected')
GROUP BY order_id, type HAVING count(*) > 1
"""
_TWO_OUTCOMES = """
SELECT order_id::text FROM order_status_history WHERE status IN ('CONFIRMED', 'REJECTED')
GROUP BY order_id HAVING count(*) > 1
"""


async def unsettled(shop: Shop) -> Violations:
    """Orders without an outcome, and events that are not published."""
    return {
        "I2 an order is not settled in time": _cases(await shop.orders.rows(_PENDING)),
        "I2 an order waits for an answer": _cases(await shop.orders.rows(_UNANSWERED)),
        "I4 an event is not published in time": _cases(await shop.orders.rows(_UNSENT)),
    }


async def wrong_responses(shop: Shop, buyers: Buyers) -> Violations:
    """Successful responses that the database does not confirm."""
    stored = {row["id"]: row for row in await shop.orders.rows(_ORDERS)}
    of_others = [
        (order_id, key)
        for key, order_id in buyers.accepted.items()
        if order_id in stored
        and (stored[order_id]["user_id"], stored[order_id]["idempotency_key"]) != key
    ]
    not_cancelled = [
        order_id
        for order_id in buyers.cancelled
        if order_id in stored and stored[order_id]["status"] != "CANCELLED"
    ]
    return {
        LOST: [order_id for order_id in buyers.accepted.values() if order_id not in stored],
        "I8 an order belongs to another user": _cases(of_others),
        "I7 a successful cancellation is not stored": not_cancelled,
    }


async def wrong_orders(shop: Shop, buyers: Buyers) -> Violations:
    """Stored orders that no buyer requested, or not in this way."""
    stored: dict[Any, dict[int, int]] = {}
    user_ids = [client.user_id for client in buyers.clients]
    for row in await shop.orders.rows(_ITEMS, user_ids):
        items = stored.setdefault((row["user_id"], row["idempotency_key"]), {})
        items[row["product_id"]] = int(row["quantity"])
    return {
        TWO_ORDERS: _cases(await shop.orders.rows(_KEY_TWICE)),
        "I6 a stored order was never requested": _cases(stored.keys() - buyers.requested.keys()),
        "I6 a stored order differs from its request": [
            f"{key}: {items} for {buyers.requested[key]}"
            for key, items in stored.items()
            if items != buyers.requested.get(key, items)
        ],
    }


async def settled_twice(shop: Shop) -> Violations:
    """Orders with more than one outcome."""
    return {
        "I5 a settlement was published twice": _cases(await shop.orders.rows(_SETTLED_TWICE)),
        "I5 an order has two outcomes": _cases(await shop.orders.rows(_TWO_OUTCOMES)),
    }


def _cases(found: Any) -> list[str]:
    return [str(each) for each in found]
