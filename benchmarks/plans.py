"""How PostgreSQL finds the rows that the services ask for, once there are many.

The services' own functions are called, and each statement that they send is explained with the
parameters that it was sent with. What they change is undone, but for delivered events pruned.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from order_service.models import Status
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from benchmarks.shop import Shop
from inventory_service import operations as inventory
from inventory_service import repository as ledger
from order_service import outbox, storage
from service_kit.postgres.engine import autocommit, dry_run, open_engine

LARGE_BYTES = 16 * 2**20
"""A table of so many bytes is not to be read as a whole."""

_BATCH = 64
_PAGE = 100
_LARGE = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) >= :size")

Ask = Callable[[AsyncEngine, AsyncConnection], Awaitable[object]]
Tree = dict[str, Any]
"""A node of a plan as EXPLAIN (FORMAT JSON) tells it."""


@dataclass(frozen=True)
class Plan:
    """How one of the services' statements is carried out."""

    name: str
    ways: list[str]
    """How each table is reached, such as `Index Scan of orders by pk_orders`."""
    cost: float
    """As PostgreSQL estimates it."""
    large_scans: list[str]
    """Large tables that are read as a whole: there should be none."""


def check(shop: Shop, retention_seconds: int) -> list[Plan]:
    """The plans; complains to the shop of each large table that would be read as a whole."""
    plans = asyncio.run(_plans(shop, retention_seconds))
    shop.complaints += [
        f"{plan.name}: reads all of {table}" for plan in plans for table in plan.large_scans
    ]
    return plans


async def _plans(shop: Shop, retention_seconds: int) -> list[Plan]:
    customer, products = min(shop.customers), range(1, 3 * _BATCH)
    in_orders: dict[str, Ask] = {
        "everybody's orders": lambda _, c: _page_of_orders(c),
        "a customer's orders": lambda _, c: _page_of_orders(c, user_id=customer),
        "confirmed orders": lambda _, c: _page_of_orders(c, status=Status.CONFIRMED),
        "rejected orders": lambda _, c: _page_of_orders(c, status=Status.REJECTED),
        "relay: unsent events": lambda _, c: outbox.unsent(c, 4 * _BATCH),
        "sweeper: prune the outbox": lambda e, _: outbox.prune(e, retention_seconds),
        "sweeper: overdue orders": lambda _, c: storage.postpone_overdue(c, 30, _BATCH),
    }
    in_inventory: dict[str, Ask] = {
        "products": lambda e, _: inventory.list_products(e, size=_PAGE, token="", query=""),
        "products by name": lambda e, _: inventory.list_products(
            e, size=_PAGE, token="", query="Product 1"
        ),
        "a product's ledger": lambda e, _: _ledger(e, max(products)),
        "the best seller's ledger": lambda e, _: _ledger(e, 1),
        "names, prices and stock": lambda e, _: inventory.check_stock(e, products),
        "lock products": lambda _, c: ledger.lock_stock(c, products),
    }
    return [
        *await _explained(shop.system.url("order"), in_orders),
        *await _explained(shop.system.url("inventory"), in_inventory),
    ]


async def _page_of_orders(
    connection: AsyncConnection, *, user_id: int = 0, status: Status | None = None
) -> object:
    return await storage.page_of_ids(
        connection, user_id=user_id, status=status, before=None, limit=_PAGE + 1
    )


async def _ledger(engine: AsyncEngine, product_id: int) -> object:
    return await inventory.list_stock_movements(engine, product_id, size=_PAGE, token="")


async def _explained(url: str, asked: dict[str, Ask]) -> list[Plan]:
    async with open_engine(url, "benchmark") as engine:
        async with autocommit(engine) as connection:
            # The plans of tomorrow: the statistics may be those of a smaller table.
            await connection.execute(text("ANALYZE"))
            large = set(await connection.scalars(_LARGE, {"size": LARGE_BYTES}))
        return [await _explain(engine, name, ask, large) for name, ask in asked.items()]


async def _explain(engine: AsyncEngine, name: str, ask: Ask, large: set[str]) -> Plan:
    sent: list[tuple[str, Any]] = []

    def note(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    async with dry_run(engine) as connection:
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        try:
            await ask(engine, connection)
        finally:
            event.remove(engine.sync_engine, "before_cursor_execute", note)
        # The first statement is what was asked for; others only follow from what it finds.
        statement, parameters = sent[0]
        found = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        (plan,) = found.scalar_one()
    nodes = list(_nodes(plan["Plan"]))
    whole = sorted({node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"})
    return Plan(
        name,
        list(dict.fromkeys(way for node in nodes if (way := _way(node)))),
        plan["Plan"]["Total Cost"],
        [table for table in whole if table in large],
    )


def _nodes(tree: Tree) -> Iterator[Tree]:
    yield tree
    for child in tree.get("Plans", ()):
        yield from _nodes(child)


def _way(node: Tree) -> str:
    """How a node reaches a table or an index; empty if it does neither."""
    index, table = node.get("Index Name"), node.get("Relation Name")
    if index is None and (table is None or node["Node Type"] == "ModifyTable"):
        return ""
    return " ".join(
        [
            node["Node Type"],
            *([f"of {table}"] if table else []),
            *([f"by {index}"] if index else []),
        ]
    )
