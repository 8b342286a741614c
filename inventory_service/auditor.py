"""Compares stock with the ledger all the time, and looks for what was moved twice.

Both at a cost that follows what changed.
"""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import ARRAY, BigInteger, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from inventory_service.audit import EQUALS_LEDGER, NOTHING_TWICE
from service_kit.consistency import Check, Finding, FindViolations
from service_kit.postgres.engine import AnyRow, autocommit

_KEEP_AFTER = 16
"""Adding up so many again costs as much as keeping a balance; see decision 0020."""
_SLICE = 10_000
_SUSPECTS = 100

_CHANGED = """
SELECT id, stock FROM products WHERE id = ANY(:open) OR (
    age(xmin) <= (SELECT age(CAST(CAST(:since AS xid8) AS xid))) AND age(xmin) >= 0)
"""
_NEXT = f"SELECT id, stock FROM products WHERE id > :after ORDER BY id LIMIT {_SLICE}"  # noqa: S608
_KEEP = """
INSERT INTO audit.stock_balances (product_id, movement_id, balance)
SELECT id, movement_id, balance FROM added_up WHERE movements >= %s ORDER BY id
ON CONFLICT (product_id) DO UPDATE
SET movement_id = excluded.movement_id, balance = excluded.balance
"""
# OFFSET 0: without it the planner, which cannot know how few products changed, reads all balances.
_COMPARE = f"""
WITH looked_at AS MATERIALIZED (%s), added_up AS MATERIALIZED (
    SELECT looked_at.id, stock, movements, fresh.movement_id,
        coalesce(known.balance, 0) + delta AS balance
    FROM looked_at LEFT JOIN LATERAL (
        SELECT movement_id, balance FROM audit.stock_balances
        WHERE product_id = looked_at.id OFFSET 0
    ) AS known ON true CROSS JOIN LATERAL (
        SELECT count(*) AS movements, max(id) AS movement_id, coalesce(sum(delta), 0) AS delta
        FROM stock_movements
        WHERE product_id = looked_at.id AND id > coalesce(known.movement_id, 0)
    ) AS fresh
), kept AS ({_KEEP % _KEEP_AFTER})
SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS oldest_running,
    (SELECT max(id) FROM looked_at) AS last_id,
    ARRAY(SELECT id FROM added_up WHERE stock <> balance ORDER BY id LIMIT {_SUSPECTS}) AS suspects
"""  # noqa: S608 - built of constants
_COMPARE_CHANGED = text(_COMPARE % _CHANGED).bindparams(
    bindparam("open", type_=ARRAY(BigInteger)), bindparam("since", type_=Text)
)
_COMPARE_NEXT = text(_COMPARE % _NEXT).bindparams(bindparam("after", type_=BigInteger))
_VERIFY = text(f"""
WITH added_up AS MATERIALIZED (
    SELECT products.id, stock, count(stock_movements.id) AS movements,
        coalesce(max(stock_movements.id), 0) AS movement_id, coalesce(sum(delta), 0) AS balance
    FROM products LEFT JOIN stock_movements ON product_id = products.id
    WHERE products.id = ANY(:ids) GROUP BY products.id
), kept AS ({_KEEP % 0})
SELECT id, stock, balance FROM added_up WHERE stock <> balance ORDER BY id
""").bindparams(bindparam("ids", type_=ARRAY(BigInteger)))  # noqa: S608 - built of constants
_LAST_MOVEMENT = text("""
SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS oldest_running,
    (SELECT coalesce(max(id), 0) FROM stock_movements) AS last_id
""")
# OFFSET 0: as above, so that the ledger is not read as a whole.
_TWICE = text(f"""
WITH looked_at AS MATERIALIZED (
    SELECT order_id FROM stock_movements WHERE id > :after AND order_id IS NOT NULL
        AND age(xmin) <= (SELECT age(CAST(CAST(:since AS xid8) AS xid))) AND age(xmin) >= 0
    UNION SELECT unnest(:open)
)
SELECT order_id, kind, product_id, times FROM looked_at CROSS JOIN LATERAL (
    SELECT kind, product_id, count(*) AS times FROM (
        SELECT kind, product_id FROM stock_movements
        WHERE order_id = looked_at.order_id OFFSET 0
    ) AS moved GROUP BY kind, product_id HAVING count(*) > 1
) AS twice ORDER BY order_id LIMIT {_SUSPECTS}
""").bindparams(  # noqa: S608 - built of constants
    bindparam("after", type_=BigInteger),
    bindparam("since", type_=Text),
    bindparam("open", type_=ARRAY(Uuid)),
)


class Auditor:
    """Compares stock with the ledger, for products that changed since the last look.

    A product changed if a transaction wrote its row that had not ended when the last look's
    snapshot was taken, as the row's `xmin` tells: no trigger, no cost where stock moves. Its
    ledger is added up from where the balance that was kept for it ends. Whoever moves stock holds
    the product's row, so a product's movements get their ids in the order of their commits.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._since: str | None = None
        self._open: list[int] = []
        self._moved: tuple[int, AnyRow] | None = None
        self._twice: list[uuid.UUID] = []

    def looks(self) -> Mapping[Check, FindViolations]:
        """What to look for."""
        return {EQUALS_LEDGER: self.wrong_stock, NOTHING_TWICE: self.moved_twice}

    async def wrong_stock(self) -> Sequence[Finding]:
        """The products whose stock is not what the ledger adds up to, a hundred at most.

        The first look, and the first after a failure, is at every product.
        """
        since, self._since = self._since, None
        async with autocommit(self._engine) as connection:
            if since is None:
                suspects, since = await self._compare_all(connection)
            else:
                parameters = {"open": self._open, "since": since}
                found = (await connection.execute(_COMPARE_CHANGED, parameters)).one()
                suspects, since = found.suspects, found.oldest_running
            # A balance that was kept is wrong once a ledger row before it was changed by hand.
            off = (await connection.execute(_VERIFY, {"ids": suspects})).all() if suspects else []
        self._since, self._open = since, [row.id for row in off]
        return [
            Finding(f"product {row.id}", f"stock {row.stock}, ledger {row.balance}") for row in off
        ]

    async def _compare_all(self, connection: AsyncConnection) -> tuple[list[int], str]:
        first = found = (await connection.execute(_COMPARE_NEXT, {"after": 0})).one()
        suspects: list[int] = found.suspects
        while found.last_id is not None:
            found = (await connection.execute(_COMPARE_NEXT, {"after": found.last_id})).one()
            suspects += found.suspects
        return suspects[:_SUSPECTS], first.oldest_running

    async def moved_twice(self) -> Sequence[Finding]:
        """Orders that moved a product twice the same way, a hundred at most; stock may add up.

        Looks at orders that moved something since the last look, and at those found then. A
        movement may be committed after others with a greater id: ids tell from where to read, one
        look earlier, and `xmin` what is new. The first look only notes where to begin.
        """
        async with autocommit(self._engine) as connection:
            now = (await connection.execute(_LAST_MOVEMENT)).one()
            after, last = self._moved or (now.last_id, now)
            parameters = {"after": after, "since": last.oldest_running, "open": self._twice}
            found = (await connection.execute(_TWICE, parameters)).all()
        self._moved = last.last_id, now
        self._twice = list({row.order_id for row in found})
        return [
            Finding(f"order {order_id}", f"{kind} of product {product_id}: {times} times")
            for order_id, kind, product_id, times in found
        ]
