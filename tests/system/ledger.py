"""What must be true of orders, stock and ledger once nothing is under way."""

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
_HELD = """
SELECT order_id::text, product_id, -sum(delta) AS quantity FROM stock_movements
WHERE order_id IS NOT NULL GROUP BY order_id, product_id HAVING sum(delta) <> 0
"""
_SOLD = """
SELECT order_id::text, product_id, sum(quantity) AS quantity
FROM order_items JOIN orders ON orders.id = order_id
WHERE status = 'CONFIRMED' GROUP BY order_id, product_id
"""


async def accounts_balance(system: System) -> None:
    """Stock equals the ledger, no order moved stock twice, and stock is held as orders say."""
    assert await system.inventory.rows(_UNBALANCED) == []
    assert await system.inventory.rows(_APPLIED_TWICE) == []
    assert _by_key(await system.inventory.rows(_HELD)) == _by_key(await system.orders.rows(_SOLD))


def _by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
    return {(row["order_id"], row["product_id"]): int(row["quantity"]) for row in rows}


async def stock(system: System, product_id: int) -> int:
    """A product's stock, as it is stored."""
    return int(await system.inventory.value("SELECT stock FROM products WHERE id = $1", product_id))


async def movements(system: System, product_id: int) -> list[tuple[str, int]]:
    """A product's ledger, oldest first: kind and signed change of stock."""
    rows = await system.inventory.rows(
        "SELECT kind, delta FROM stock_movements WHERE product_id = $1 ORDER BY id", product_id
    )
    return [(row["kind"], row["delta"]) for row in rows]


async def status(system: System, order_id: str) -> str:
    """An order's status, as it is stored."""
    return str(await system.orders.value("SELECT status FROM orders WHERE id = $1", order_id))
