"""What the databases store of orders and stock, and whether it is consistent."""

from typing import Any

from tests.support.system import System

_UNBALANCED = """
SELECT products.id, products.stock, coalesce(sum(delta), 0) AS ledger
FROM products LEFT JOIN stock_movements ON product_id = products.id
GROUP BY products.id HAVING products.stock <> coalesce(sum(delta), 0) OR products.stock < 0
"""
_APPLIED_TWICE = """
SELECT order_id, product_id, kind FROM stock_movements WHERE order_id IS NOT NULL
GROUP BY order_id, product_id, kind HAVING count(*) > 1
"""
_DEDUCTED = """
SELECT order_id::text, product_id, -sum(delta) AS quantity FROM stock_movements
WHERE order_id IS NOT NULL GROUP BY order_id, product_id HAVING sum(delta) <> 0
"""
_SOLD = """
SELECT order_id::text, product_id, sum(quantity) AS quantity
FROM order_items JOIN orders ON orders.id = order_id
WHERE status = 'CONFIRMED' GROUP BY order_id, product_id
"""


async def assert_consistent(system: System) -> None:
    """Stock equals the ledger, no order moved stock twice, only CONFIRMED orders hold stock."""
    assert await system.inventory.rows(_UNBALANCED) == []
    assert await system.inventory.rows(_APPLIED_TWICE) == []
    deducted = _by_key(await system.inventory.rows(_DEDUCTED))
    assert deducted == _by_key(await system.orders.rows(_SOLD))


def _by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
    return {(row["order_id"], row["product_id"]): int(row["quantity"]) for row in rows}


async def stock(system: System, product_id: int) -> int:
    """The stored stock of a product."""
    return int(await system.inventory.value("SELECT stock FROM products WHERE id = $1", product_id))


async def stock_movements(system: System, product_id: int) -> list[tuple[str, int]]:
    """The ledger of a product, oldest first: kind and signed change of stock."""
    rows = await system.inventory.rows(
        "SELECT kind, delta FROM stock_movements WHERE product_id = $1 ORDER BY id", product_id
    )
    return [(row["kind"], row["delta"]) for row in rows]


async def order_status(system: System, order_id: str) -> str:
    """The stored status of an order."""
    return str(await system.orders.value("SELECT status FROM orders WHERE id = $1", order_id))
