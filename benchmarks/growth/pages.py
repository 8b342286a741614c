"""Pages of each list of the API: they cost the same at any depth."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from statistics import median
from typing import Any

from benchmarks.system.shop import Shop
from launcher.errors import LauncherError
from service_kit.pagination import encode_token

SIZE = 100
DEPTHS = (0.0, 0.5, 0.95)
"""Shares of a list that come before the page."""

_ADMIN = "SELECT min(id) FROM users WHERE role = 'ADMIN'"
_CUSTOMER = "SELECT user_id FROM orders ORDER BY id LIMIT 1"
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
    """A list of the API, and the statement that returns its keys in its order."""

    name: str
    path: str
    token: str
    database: str
    keys: str
    parameters: Sequence[int] = ()


def measure(shop: Shop, seconds: float) -> list[Page]:
    """The first, a middle and a late page of each list; each measured for `seconds`."""
    return [page for each in _lists(shop) for page in _pages(shop, each, seconds)]


def _lists(shop: Shop) -> list[_List]:
    system = shop.system
    customer = system.fetch_value("order", _CUSTOMER)
    sold = system.fetch_value("inventory", _BEST_SELLER)
    admin, own = system.token(system.fetch_value("user", _ADMIN), "admin"), system.token(customer)
    ledger = f"/v1/products/{sold}/stock-movements?"
    named = [
        _List(
            f"products named …{name}…",
            f"/v1/products?query={name}&",
            "",
            "inventory",
            _NAMED.format(name),
        )
        for name in (_COMMON, _RARE)
    ]
    return [
        _List("products", "/v1/products?", "", "inventory", _PRODUCTS),
        *named,
        _List("all orders", "/v1/orders?", admin, "order", _ALL_ORDERS),
        _List("a customer's orders", "/v1/orders?", own, "order", _OWN_ORDERS, [customer]),
        _List("orders by status", "/v1/orders?status=CONFIRMED&", admin, "order", _CONFIRMED),
        _List("the best seller's ledger", ledger, admin, "inventory", _LEDGER, [sold]),
    ]


def _pages(shop: Shop, each: _List, seconds: float) -> Iterator[Page]:
    def fetch_value(statement: str) -> Any:
        return shop.system.fetch_value(each.database, statement, *each.parameters)

    count = fetch_value(f"SELECT count(*) FROM ({each.keys})")
    for depth in (int(count * share) for share in DEPTHS):
        # A page's token is the key of the last entry before it.
        token = (
            encode_token(fetch_value(f"{each.keys} OFFSET {depth - 1} LIMIT 1")) if depth else ""
        )
        path = f"{each.path}page_size={SIZE}&page_token={token}"
        yield Page(each.name, depth, _median_ms(shop.system.gateway, path, each.token, seconds))


def _median_ms(address: str, path: str, token: str, seconds: float) -> float:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    durations = list[float]()
    with closing(HTTPConnection(address)) as connection:
        while sum(durations) < seconds:
            started = time.perf_counter()
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
            durations.append(time.perf_counter() - started)
            if response.status != HTTPStatus.OK:
                raise LauncherError(f"{path}: {response.status} {body!r}")
    return 1000 * median(durations)
