"""SQL of the consistency checks, which only read.

Each statement that finds violations returns their subjects and details.
"""

import datetime as dt
import uuid
from collections.abc import Collection

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from order_service.consistency.domain import StoredOrder
from order_service.domain import OrderStatus
from service_kit.consistency import Finding

_MAX_FINDINGS = 10_000

# The outbox is read once and joined by hash: an index by order would cost with every event.
UNSETTLED_ORDERS = text("""
WITH late AS MATERIALIZED (
    SELECT id, status, updated_at FROM orders
    WHERE (status = 'PENDING' OR next_republish_at IS NOT NULL)
        AND updated_at < now() - make_interval(secs => :grace_seconds)
), event AS (
    SELECT DISTINCT ON (order_id) order_id, sent_at, last_error FROM outbox
    WHERE order_id IN (SELECT id FROM late) ORDER BY order_id, id DESC
)
SELECT 'order ' || late.id, format('%s for %s s%s', status,
    round(extract(epoch FROM now() - updated_at)), CASE
        WHEN event.order_id IS NULL THEN ', without an event'
        WHEN sent_at IS NULL THEN ', its event is not published' || coalesce(': ' || last_error, '')
        ELSE ', its event was published at ' || date_trunc('second', sent_at) END)
FROM late LEFT JOIN event ON event.order_id = late.id
ORDER BY late.id LIMIT :limit
""")

UNBALANCED_ORDERS = text("""
SELECT 'order ' || orders.id, CASE
    WHEN items IS NULL THEN 'no items'
    WHEN items <> total_cents THEN format('total %s cents, items %s', total_cents, items)
    ELSE orders.status || ' is not in its history' END
FROM orders LEFT JOIN (
    SELECT order_id, sum(quantity * unit_price_cents) AS items FROM order_items GROUP BY order_id
) AS sums ON sums.order_id = orders.id
LEFT JOIN order_status_history AS history
    ON history.order_id = orders.id AND history.status = orders.status
WHERE items IS DISTINCT FROM total_cents OR history.order_id IS NULL
ORDER BY orders.id LIMIT :limit
""")

UNPUBLISHED_EVENTS = text("""
SELECT 'event ' || id, format('%s of order %s is not published after %s s%s', type, order_id,
    round(extract(epoch FROM now() - created_at)), coalesce(': ' || last_error, ''))
FROM outbox WHERE sent_at IS NULL AND created_at < now() - make_interval(secs => :grace_seconds)
ORDER BY id LIMIT :limit
""")

# A row is deleted some time after it was sent, so the events of these changes all still exist.
CHANGES_WITHOUT_EVENT = text("""
SELECT 'order ' || order_id, format('became %s without an event', status)
FROM order_status_history AS history
WHERE changed_at > now() - make_interval(secs => :kept_seconds) AND NOT EXISTS (
    SELECT FROM outbox WHERE outbox.order_id = history.order_id AND type = 'order.' || CASE status
        WHEN 'PENDING' THEN 'created' ELSE lower(status) END)
ORDER BY order_id LIMIT :limit
""")

SEVERAL_OUTCOMES = text("""
SELECT 'order ' || order_id, string_agg(outcome, ', ' ORDER BY outcome) FROM (
    SELECT order_id, type AS outcome FROM outbox
    WHERE type IN ('order.confirmed', 'order.rejected')
    UNION SELECT order_id, 'order.' || lower(status) FROM order_status_history
    WHERE status IN ('CONFIRMED', 'REJECTED')
    UNION ALL SELECT order_id, count(*) || ' times ' || type FROM outbox
    WHERE type IN ('order.confirmed', 'order.rejected')
    GROUP BY order_id, type HAVING count(*) > 1
) AS outcomes GROUP BY order_id HAVING count(*) > 1 ORDER BY 1 LIMIT :limit
""")

# What proves that orders get through again: a younger one was settled long enough ago. Without it
# an outage would look like lost orders. Overtaken is every order that was last changed before the
# one found here was created.
_LAST_OVERTAKER = text("""
SELECT created_at FROM (
    SELECT id, created_at, status, updated_at FROM orders WHERE id < :id
    ORDER BY id DESC LIMIT :backlog
) AS older WHERE status IN ('CONFIRMED', 'REJECTED') AND updated_at < :before
ORDER BY id DESC LIMIT 1
""")

_OVERTAKEN_ORDERS = text("""
SELECT 'order ' || id, format('%s since %s, inventory has not answered', status, updated_at) FROM (
    SELECT id, status, updated_at FROM orders WHERE next_republish_at IS NOT NULL
    ORDER BY next_republish_at LIMIT :backlog
) AS unanswered WHERE updated_at < :before ORDER BY id LIMIT :limit
""")

_OVERTAKEN_EVENTS = text("""
SELECT 'event ' || id, format('%s of order %s: %s', type, order_id,
    coalesce(last_error, 'not tried'))
FROM outbox WHERE sent_at IS NULL AND id < (
    SELECT id FROM outbox WHERE sent_at < :before ORDER BY sent_at DESC LIMIT 1)
ORDER BY id LIMIT :limit
""")

_COUNT = text("SELECT count(*) FROM orders")

_IDS_AFTER = text("SELECT id FROM orders WHERE id > :after ORDER BY id LIMIT :limit")

_NEWEST_IDS = text("""
SELECT id FROM orders WHERE id >= :since AND id < :until ORDER BY id DESC LIMIT :limit
""")

_EXISTING_IDS = text("SELECT id FROM orders WHERE id = ANY(:ids)")

_STORED = text("""
SELECT id, status, next_republish_at IS NULL AS is_answered,
    ARRAY(SELECT product_id FROM order_items WHERE order_id = id ORDER BY position) AS products,
    ARRAY(SELECT quantity FROM order_items WHERE order_id = id ORDER BY position) AS quantities
FROM orders WHERE id = ANY(:ids)
""")


async def find_violations(
    connection: AsyncConnection,
    statement: TextClause,
    *,
    grace_seconds: float,
    kept_seconds: float,
) -> list[Finding]:
    """What one of UNSETTLED_ORDERS … SEVERAL_OUTCOMES finds, 10,000 violations at most.

    What is younger than `grace_seconds` is not yet late; sent events are kept for `kept_seconds`.
    """
    parameters: dict[str, object] = {
        "grace_seconds": grace_seconds,
        "kept_seconds": kept_seconds,
        "limit": _MAX_FINDINGS,
    }
    return [Finding(*row) for row in await connection.execute(statement, parameters)]


async def overtaken_orders(
    connection: AsyncConnection, before: dt.datetime, newest: uuid.UUID, *, backlog: int, limit: int
) -> list[Finding]:
    """Orders that inventory has not answered although it settled younger ones.

    The younger ones have ids below `newest` and were settled before `before`; of these, and of
    those without an answer, `backlog` at most are read.
    """
    parameters: dict[str, object] = {"id": newest, "before": before, "backlog": backlog}
    overtaker = await connection.scalar(_LAST_OVERTAKER, parameters)
    if overtaker is None:
        return []
    parameters = {"before": overtaker, "backlog": backlog, "limit": limit}
    return [Finding(*row) for row in await connection.execute(_OVERTAKEN_ORDERS, parameters)]


async def overtaken_events(
    connection: AsyncConnection, before: dt.datetime, limit: int
) -> list[Finding]:
    """Events that are not published although a younger one was, before `before`."""
    parameters = {"before": before, "limit": limit}
    return [Finding(*row) for row in await connection.execute(_OVERTAKEN_EVENTS, parameters)]


async def count_orders(connection: AsyncConnection) -> int:
    """How many orders exist."""
    return int(await connection.scalar(_COUNT) or 0)


async def ids_after(connection: AsyncConnection, after: uuid.UUID, limit: int) -> list[uuid.UUID]:
    """The next ids of orders above `after`, ascending."""
    return list(await connection.scalars(_IDS_AFTER, {"after": after, "limit": limit}))


async def newest_ids(
    connection: AsyncConnection, since: uuid.UUID, until: uuid.UUID, limit: int
) -> list[uuid.UUID]:
    """The highest ids of orders from `since` on and below `until`."""
    parameters: dict[str, object] = {"since": since, "until": until, "limit": limit}
    return list(await connection.scalars(_NEWEST_IDS, parameters))


async def existing_ids(
    connection: AsyncConnection, order_ids: Collection[uuid.UUID]
) -> set[uuid.UUID]:
    """The ids that belong to an order."""
    return set(await connection.scalars(_EXISTING_IDS, {"ids": list(order_ids)}))


async def stored_orders(
    connection: AsyncConnection, order_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, StoredOrder]:
    """What the orders that exist say about their stock, by id."""
    return {
        row.id: StoredOrder(
            OrderStatus(row.status),
            row.is_answered,
            dict(zip(row.products, row.quantities, strict=True)),
        )
        for row in await connection.execute(_STORED, {"ids": list(order_ids)})
    }
