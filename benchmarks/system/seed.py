"""Products and users, written straight into the databases: the API would take long.

The rows are those that the services would write, stock movements included.
"""

import asyncio

from benchmarks.system.launch import System

STOCK = 1_000_000_000
"""Of each product: no order is rejected for a shortage."""

_PRODUCTS = """
WITH new AS (
    INSERT INTO products (id, name, description, price_cents, stock)
    SELECT n, 'Product ' || n, 'Description of product ' || n, 100 + n % 900, $3
    FROM generate_series($1::bigint, $2::bigint) AS n
    RETURNING id, stock
)
INSERT INTO stock_movements (product_id, kind, delta, reason)
SELECT id, 'INITIAL', stock, 'benchmark' FROM new
"""
# All have the administrator's password, so that they can log in.
_USERS = """
WITH admin AS (SELECT password_hash FROM users WHERE role = 'ADMIN' ORDER BY id LIMIT 1)
INSERT INTO users (email, name, role, password_hash)
SELECT 'user' || n || '@example.com', 'User ' || n, 'CUSTOMER', admin.password_hash
FROM generate_series(1, $1::int) AS n, admin
RETURNING id, email
"""


def add_products(system: System, first: int, last: int) -> None:
    """Add products with the ids from `first` to `last`."""

    async def add() -> None:
        async with system.connect("inventory") as connection:
            await connection.execute(_PRODUCTS, first, last, STOCK)
            await connection.execute("SELECT setval('products_id_seq', max(id)) FROM products")
            await connection.execute("VACUUM ANALYZE products, stock_movements")

    asyncio.run(add())


def add_customers(system: System, count: int) -> dict[int, str]:
    """Add customers with the administrator's password; their e-mail addresses by id."""

    async def add() -> dict[int, str]:
        async with system.connect("user") as connection:
            rows = await connection.fetch(_USERS, count)
            await connection.execute("VACUUM ANALYZE users")
            return {row["id"]: row["email"] for row in rows}

    return asyncio.run(add())
