"""What shall hold in the orders' data, and between orders and inventory, and what breaks it.

This is about everything; `auditor` looks at little, all the time.
"""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, Float, TextClause, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncEngine

from order_service.clients import ReservationClient
from order_service.models import Reservation, Status
from service_kit.consistency import Check, Finding
from service_kit.postgres.engine import AnyRow, autocommit, snapshot

IN_TIME = Check("I2", "orders_settled", "every order is settled in time")
ADDS_UP = Check("I3", "orders_add_up", "an order has its items, its total and its history")
EQUALS_RESERVATION = Check(
    "I3", "orders_equal_reservations", "a confirmed order holds what it ordered, others nothing"
)
NO_STRANGERS = Check("I3", "no_stock_for_strangers", "stock is held for no order that is not there")
PUBLISHED = Check("I4", "events_published", "every event is published in time")
HAS_EVENT = Check("I4", "changes_have_events", "every change of an order has its event")
TOLD_ONCE = Check("I5", "outcome_told_once", "an order has one outcome, told once")

_AT_MOST = 10_000
_PAGE = 500

_LOCAL: dict[Check, str] = {
    # The outbox is read once and joined by hash: an index by order would cost with every event.
    IN_TIME: """
WITH late AS MATERIALIZED (
    SELECT id, status, updated_at FROM orders
    WHERE (status = 'PENDING' OR next_offer_at IS NOT NULL)
        AND updated_at < now() - make_interval(secs => :grace)
), event AS (
    SELECT DISTINCT ON (order_id) order_id, sent_at, last_error FROM outbox
    WHERE order_id IN (SELECT id FROM late) ORDER BY order_id, id DESC
)
SELECT 'order ' || late.id, format('%s for %s s%s', status,
    round(extract(epoch FROM now() - updated_at)), CASE
        WHEN event.order_id IS NULL THEN ', without an event'
        WHEN sent_at IS NULL THEN coalesce(', its event waits: ' || last_error, ', its event waits')
        ELSE ', its event was published at ' || date_trunc('second', sent_at) END)
FROM late LEFT JOIN event ON event.order_id = late.id
ORDER BY late.id
""",
    ADDS_UP: """
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
ORDER BY orders.id
""",
    PUBLISHED: """
SELECT 'event ' || id, format('%s of order %s waits for %s s%s', type, order_id,
    round(extract(epoch FROM now() - created_at)), coalesce(', refused: ' || last_error, ''))
FROM outbox WHERE sent_at IS NULL AND created_at < now() - make_interval(secs => :grace)
ORDER BY id
""",
    # A row is deleted some time after it was sent, so these are all still there.
    HAS_EVENT: """
SELECT 'order ' || order_id, format('became %s without an event', status)
FROM order_status_history AS history
WHERE changed_at > now() - make_interval(secs => :kept) AND NOT EXISTS (
    SELECT FROM outbox WHERE outbox.order_id = history.order_id AND type = 'order.' || CASE status
        WHEN 'PENDING' THEN 'created' ELSE lower(status) END)
ORDER BY order_id
""",
    TOLD_ONCE: """
SELECT 'order ' || order_id, string_agg(what, ', ' ORDER BY what) FROM (
    SELECT order_id, type AS what FROM outbox WHERE type IN ('order.confirmed', 'order.rejected')
    UNION SELECT order_id, 'order.' || lower(status) FROM order_status_history
    WHERE status IN ('CONFIRMED', 'REJECTED')
    UNION ALL SELECT order_id, count(*) || ' times ' || type FROM outbox
    WHERE type IN ('order.confirmed', 'order.rejected')
    GROUP BY order_id, type HAVING count(*) > 1
) AS told GROUP BY order_id HAVING count(*) > 1 ORDER BY 1
""",
}
RULES = (*_LOCAL, EQUALS_RESERVATION, NO_STRANGERS)

_NEXT_IDS = text(
    f"SELECT id FROM orders WHERE id > :after ORDER BY id LIMIT {_PAGE}"  # noqa: S608
).bindparams(bindparam("after", type_=Uuid))
_ANY = bindparam("ids", type_=ARRAY(Uuid))
_KNOWN = text("SELECT id FROM orders WHERE id = ANY(:ids)").bindparams(_ANY)
_DECIDED = text("""
SELECT id, status, next_offer_at IS NOT NULL AS outstanding,
    ARRAY(SELECT product_id FROM order_items WHERE order_id = id ORDER BY position) AS products,
    ARRAY(SELECT quantity FROM order_items WHERE order_id = id ORDER BY position) AS quantities
FROM orders WHERE id = ANY(:ids)
""").bindparams(_ANY)


@dataclass(frozen=True, slots=True)
class Books:
    """The two sides that have to agree: the orders' database, and what inventory decided."""

    engine: AsyncEngine
    inventory: ReservationClient


Advance = Callable[[int], None]


async def count_orders(engine: AsyncEngine) -> int:
    """How many orders there are."""
    async with autocommit(engine) as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM orders")) or 0)


async def run_audit(
    books: Books, *, grace_seconds: float, kept_seconds: float, advance: Advance
) -> dict[Check, Sequence[Finding]]:
    """What breaks each of RULES; `advance` is told how many orders more were compared.

    Events are kept for `kept_seconds`; what is younger than `grace_seconds` is not yet late.
    """
    findings: dict[Check, Sequence[Finding]] = {}
    async with snapshot(books.engine) as connection:
        for rule, breaches in _LOCAL.items():
            statement = _bound(f"{breaches} LIMIT {_AT_MOST}", grace_seconds, kept_seconds)
            rows = await connection.execute(statement)
            findings[rule] = [Finding(subject, detail) for subject, detail in rows]
    unequal: list[Finding] = []
    async for ids in _pages(books.engine):
        unequal += await compare(books, ids)
        advance(len(ids))
    findings[EQUALS_RESERVATION] = unequal
    findings[NO_STRANGERS] = await _strangers(books, grace_seconds)
    return findings


def _bound(statement: str, grace_seconds: float, kept_seconds: float) -> TextClause:
    values = {"grace": grace_seconds, "kept": kept_seconds}
    used = {name: value for name, value in values.items() if f":{name})" in statement}
    return text(statement).bindparams(*(bindparam(n, v, Float) for n, v in used.items()))


async def _pages(engine: AsyncEngine) -> AsyncIterator[list[uuid.UUID]]:
    after = uuid.UUID(int=0)
    while True:
        async with autocommit(engine) as connection:
            ids = list(await connection.scalars(_NEXT_IDS, {"after": after}))
        if not ids:
            return
        yield ids
        after = ids[-1]


async def compare(books: Books, order_ids: Collection[uuid.UUID]) -> list[Finding]:
    """Those of these orders that hold something else in inventory than they should.

    Exact while both go on: inventory decides before an order is settled and gives back after it
    was cancelled, so what is wrong, and still is the same order afterwards, is wrong.
    """
    orders = await _decided(books.engine, order_ids)
    held = await books.inventory.reservations(order_ids)
    off = {
        order_id: fault
        for order_id, order in orders.items()
        if (fault := _fault(order, held.get(order_id)))
    }
    if not off:
        return []
    again = await _decided(books.engine, off)
    return [
        Finding(f"order {order_id}", fault)
        for order_id, fault in off.items()
        if again.get(order_id) == orders[order_id]
    ]


async def _decided(engine: AsyncEngine, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, AnyRow]:
    async with autocommit(engine) as connection:
        return {row.id: row for row in await connection.execute(_DECIDED, {"ids": list(ids)})}


def _fault(order: AnyRow, reservation: Reservation | None) -> str | None:
    if order.status == Status.PENDING or order.outstanding:
        return None
    if order.status == Status.CONFIRMED:
        wanted, states = dict(zip(order.products, order.quantities, strict=True)), ["DEDUCTED"]
    elif order.status == Status.REJECTED:
        wanted, states = {}, ["REJECTED"]
    else:
        # REJECTED: it was cancelled while inventory's answer was on its way.
        wanted, states = {}, ["RESTORED", "CANCELLED", "REJECTED"]
    if reservation is None:
        return f"{order.status}, but inventory never decided for it"
    held = reservation.held()
    if reservation.state in states and held == wanted:
        return None
    return f"{order.status} {_units(wanted)}, inventory: {reservation.state} {_units(held)}"


def _units(quantities: dict[int, int]) -> str:
    units = (f"{quantity} of product {product}" for product, quantity in quantities.items())
    return f"({', '.join(units) or 'nothing'})"


async def _strangers(books: Books, grace_seconds: float) -> list[Finding]:
    """The consumer gives back at once what it took for an order that nobody placed."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=grace_seconds)
    findings = []
    async for page in books.inventory.holders():
        async with autocommit(books.engine) as connection:
            known = set(await connection.scalars(_KNOWN, {"ids": list(page)}))
        findings += [
            Finding(f"order {order_id}", f"is unknown, but holds stock since {found.decided_at}")
            for order_id, found in page.items()
            if order_id not in known and found.decided_at < before
        ]
    return findings
