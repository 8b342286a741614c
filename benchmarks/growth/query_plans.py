"""How PostgreSQL finds the rows that the services select, once many are stored.

Each statement is captured from the service's own function and explained with its parameters. All
changes are rolled back, except that sent events are pruned.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from benchmarks.system.shop import Shop
from inventory_service import operations as inventory
from inventory_service.repository import lock_stock
from order_service import repository as orders
from order_service import republisher
from order_service.domain import OrderStatus
from order_service.outbox import repository as outbox
from service_kit.postgres.engine import autocommit, dry_run, open_engine

LARGE_BYTES = 16 * 2**20
"""A table of this size must not be read as a whole."""

_BATCH_SIZE = 64
_PAGE_SIZE = 100
_LARGE = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) >= :size")

Query = Callable[[AsyncEngine, AsyncConnection], Awaitable[object]]
"""Calls a function of a service that sends the statement to explain first."""
Node = dict[str, Any]
"""A node of a plan, from EXPLAIN (FORMAT JSON)."""


@dataclass(frozen=True)
class QueryPlan:
    """How one of the services' statements is executed."""

    name: str
    access_paths: list[str]
    """How each table is read, such as `Index Scan using pk_orders on orders`."""
    cost: float
    """PostgreSQL's estimate."""
    large_scans: list[str]
    """Large tables that are read as a whole: none is allowed."""


def check(shop: Shop, retention_seconds: int) -> list[QueryPlan]:
    """The plans; each large table that is read as a whole is a failure of the run."""
    plans = asyncio.run(_plans(shop, retention_seconds))
    shop.failures += [
        f"{plan.name}: reads all of {table}" for plan in plans for table in plan.large_scans
    ]
    return plans


async def _plans(shop: Shop, retention_seconds: int) -> list[QueryPlan]:
    return [
        *await _explain_all(shop.system.url("order"), _order_queries(shop, retention_seconds)),
        *await _explain_all(shop.system.url("inventory"), _inventory_queries()),
    ]


def _order_queries(shop: Shop, retention_seconds: int) -> dict[str, Query]:
    def page(*, user_id: int = 0, status: OrderStatus | None = None) -> Query:
        return lambda _, connection: orders.list_ids(
            connection, user_id=user_id, status=status, before=None, limit=_PAGE_SIZE + 1
        )

    return {
        "all orders": page(),
        "a customer's orders": page(user_id=min(shop.customers)),
        "confirmed orders": page(status=OrderStatus.CONFIRMED),
        "rejected orders": page(status=OrderStatus.REJECTED),
        "relay: unsent events": lambda _, c: outbox.unsent_events(c, 4 * _BATCH_SIZE),
        "pruner: sent events": lambda e, _: outbox.prune(e, retention_seconds),
        "republisher: overdue orders": lambda _, c: orders.defer_overdue(
            c,
            interval_seconds=60,
            fixed_interval_attempts=republisher.FIXED_INTERVAL_ATTEMPTS,
            max_interval_seconds=republisher.MAX_INTERVAL_SECONDS,
            max_unanswered=republisher.MAX_UNANSWERED,
        ),
    }


def _inventory_queries() -> dict[str, Query]:
    def page(query: str) -> Query:
        return lambda engine, _: inventory.list_products(
            engine, size=_PAGE_SIZE, token="", query=query
        )

    def movements(product_id: int) -> Query:
        return lambda engine, _: inventory.list_stock_movements(
            engine, product_id, size=_PAGE_SIZE, token=""
        )

    products = range(1, 3 * _BATCH_SIZE)
    return {
        "products": page(""),
        "products by name": page("Product 1"),
        "a product's ledger": movements(max(products)),
        "the best seller's ledger": movements(1),
        "check stock": lambda e, _: inventory.check_stock(e, products),
        "lock stock": lambda _, c: lock_stock(c, products),
    }


async def _explain_all(url: str, queries: dict[str, Query]) -> list[QueryPlan]:
    async with open_engine(url, "benchmark") as engine:
        async with autocommit(engine) as connection:
            # The statistics may be those of a smaller table.
            await connection.execute(text("ANALYZE"))
            large = set(await connection.scalars(_LARGE, {"size": LARGE_BYTES}))
        return [await _explain(engine, name, query, large) for name, query in queries.items()]


async def _explain(engine: AsyncEngine, name: str, query: Query, large: set[str]) -> QueryPlan:
    async with dry_run(engine) as connection:
        statement, parameters = await _first_statement(engine, connection, query)
        explained = await connection.exec_driver_sql(
            f"EXPLAIN (FORMAT JSON) {statement}", parameters
        )
        (plan,) = explained.scalar_one()
    nodes = list(_nodes(plan["Plan"]))
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    return QueryPlan(
        name,
        list(dict.fromkeys(path for node in nodes if (path := _access_path(node)))),
        plan["Plan"]["Total Cost"],
        sorted(scanned & large),
    )


async def _first_statement(
    engine: AsyncEngine, connection: AsyncConnection, query: Query
) -> tuple[str, Any]:
    """The first statement that `query` sends, with its parameters; others only follow from it."""
    sent: list[tuple[str, Any]] = []

    def record(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    try:
        await query(engine, connection)
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", record)
    return sent[0]


def _nodes(tree: Node) -> Iterator[Node]:
    yield tree
    for child in tree.get("Plans", ()):
        yield from _nodes(child)


def _access_path(node: Node) -> str:
    """How a node reads a table or an index; empty if it reads neither."""
    index, table = node.get("Index Name"), node.get("Relation Name")
    if index is None and (table is None or node["Node Type"] == "ModifyTable"):
        return ""
    using = f" using {index}" if index else ""
    return f"{node['Node Type']}{using}" + (f" on {table}" if table else "")
