"""A catalogue and users, written straight into the databases: thousands through the API take long.

What is written is what the services would have written, ledger included.
"""

from benchmarks.system import System

STOCK = 1_000_000_000
"""Of each product: no order is ever short."""

_PRODUCTS = """
WITH made AS (
    INSERT INTO products (id, name, description, price_cents, stock)
    SELECT n, 'Product ' || n, 'What there is to say about product ' || n, 100 + n % 900, $3
    FROM generate_series($1::bigint, $2::bigint) AS n
    RETURNING id, stock
)
INSERT INTO stock_movements (product_id, kind, delta, reason)
SELECT id, 'INITIAL', stock, 'benchmark' FROM made
"""
# All with the administrator's password, so that they can log in.
_USERS = """
WITH admin AS (SELECT password_hash FROM users WHERE role = 'ADMIN' ORDER BY id LIMIT 1)
INSERT INTO users (email, name, role, password_hash)
SELECT 'user' || n || '@example.com', 'User ' || n, 'CUSTOMER', admin.password_hash
FROM generate_series(1, $1::int) AS n, admin
RETURNING id, email
"""


async def products(system: System, first: int, last: int) -> None:
    """Products with the ids from `first` to `last`."""
    connection = await system.connect("inventory")
    try:
        await connection.execute(_PRODUCTS, first, last, STOCK)
        await connection.execute("SELECT setval('products_id_seq', max(id)) FROM products")
        await connection.execute("VACUUM ANALYZE products, stock_movements")
    finally:
        await connection.close()


async def users(system: System, count: int) -> dict[int, str]:
    """Customers who have the administrator's password: e-mail address by id."""
    connection = await system.connect("user")
    try:
        rows = await connection.fetch(_USERS, count)
        await connection.execute("VACUUM ANALYZE users")
    finally:
        await connection.close()
    return {row["id"]: row["email"] for row in rows}
