"""Pages of each list of the API: they cost the same however deep they are."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from statistics import median
from typing import Any

from benchmarks.shop import Shop
from launcher.errors import LauncherError
from service_kit.pagination import encode_token

SIZE = 100
DEPTHS = (0.0, 0.5, 0.95)
"""Shares of a list that lie before the page."""

_ADMIN = "SELECT min(id) FROM users WHERE role = 'ADMIN'"
_BUYER = "SELECT user_id FROM orders ORDER BY id LIMIT 1"
_BEST_SELLER = """
SELECT product_id FROM stock_movements GROUP BY product_id ORDER BY count(*) DESC LIMIT 1
"""
_PRODUCTS = "SELECT id FROM products ORDER BY id"
_NAMED = "SELECT id FROM products WHERE name LIKE '%{}%' ORDER BY id"
_COMMON, _RARE = "1", "9999"
_ALL_ORDERS = "SELECT id FROM orders ORDER BY id DESC"
_CONFIRMED = "SELECT id FROM orders WHERE status = 'CONFIRMED' ORDER BY id DESC"
_OWN_ORDERS = "SELECT id FROM orders WHERE user_id = $1 ORDER BY id DESC"
_LEDGER = "SELECT id FROM stock_movements WHERE product_id = $1 ORDER BY id DESC"


@dataclass(frozen=True)
class Page:
    """How long a page of 100 takes at some depth: median of one client's requests, in ms."""

    name: str
    depth: int
    milliseconds: float


@dataclass(frozen=True)
class _List:
    """A list of the API, and the statement that gives its keys in its order."""

    name: str
    path: str
    token: str
    database: str
    keys: str
    parameters: Sequence[int] = ()


def measure(shop: Shop, seconds: float) -> list[Page]:
    """The first, a middle and a late page of each list; each measured for `seconds`."""
    lists = asyncio.run(_lists(shop))
    return [page for each in lists for page in _pages_of(shop, each, seconds)]


async def _lists(shop: Shop) -> list[_List]:
    admin = shop.system.token(await _value(shop, "user", _ADMIN), "admin")
    buyer = await _value(shop, "order", _BUYER)
    sold = await _value(shop, "inventory", _BEST_SELLER)
    own = shop.system.token(buyer)
    ledger = f"/v1/products/{sold}/stock-movements"
    return [
        _List("products", "/v1/products?", "", "inventory", _PRODUCTS),
        *(
            _List(
                f"products named …{name}…",
                f"/v1/products?query={name}&",
                "",
                "inventory",
                _NAMED.format(name),
            )
            for name in (_COMMON, _RARE)
        ),
        _List("everybody's orders", "/v1/orders?", admin, "order", _ALL_ORDERS),
        _List("a customer's orders", "/v1/orders?", own, "order", _OWN_ORDERS, [buyer]),
        _List("orders by status", "/v1/orders?status=CONFIRMED&", admin, "order", _CONFIRMED),
        _List("the best seller's ledger", f"{ledger}?", admin, "inventory", _LEDGER, [sold]),
    ]


def _pages_of(shop: Shop, each: _List, seconds: float) -> Iterator[Page]:
    for depth, key in asyncio.run(_keys(shop, each)):
        token = encode_token(key) if depth else ""
        path = f"{each.path}page_size={SIZE}&page_token={token}"
        yield Page(each.name, depth, _median_ms(shop.system.gateway, path, each.token, seconds))


def _median_ms(address: str, path: str, token: str, seconds: float) -> float:
    connection = HTTPConnection(address)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    taken = list[float]()
    with closing(connection):
        while sum(taken) < seconds:
            started = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            taken.append(time.perf_counter() - started)
            if answer.status != HTTPStatus.OK:
                raise LauncherError(f"{path}: {answer.status} {body!r}")
    return 1000 * median(taken)


async def _keys(shop: Shop, each: _List) -> list[tuple[int, object]]:
    """How many entries lie before each page, and the key of the last one of them."""
    count = await _value(
        shop, each.database, f"SELECT count(*) FROM ({each.keys})", *each.parameters
    )
    depths = [int(count * share) for share in DEPTHS]
    return [
        (depth, await _value(shop, each.database, _nth(each, depth), *each.parameters))
        for depth in depths
    ]


def _nth(each: _List, depth: int) -> str:
    return f"{each.keys} OFFSET {max(0, depth - 1)} LIMIT 1"


async def _value(shop: Shop, database: str, statement: str, *parameters: int) -> Any:
    connection = await shop.system.connect(database)
    try:
        return await connection.fetchval(statement, *parameters)
    finally:
        await connection.close()
