"""Reads of products and orders."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.loops import LoadResult, closed_loop
from benchmarks.load.requests import request
from benchmarks.system.processes import CpuMeter
from benchmarks.system.shop import Shop
from service_kit.pagination import encode_token

CLIENTS = 64
SAMPLE = 2_000
_ORDERS = "SELECT id::text, user_id FROM orders ORDER BY id DESC LIMIT $1"


@dataclass(frozen=True)
class Read:
    """A kind of read: its load and its cost per response, all programs together."""

    name: str
    load: LoadResult
    cpu_milliseconds: float


def measure(shop: Shop, seconds: float) -> list[Read]:
    """Products, pages of products, and orders, chosen at random."""
    chance = random.Random(1)
    ids = [chance.randint(1, shop.products) for _ in range(SAMPLE)]
    pages = [request("GET", f"/v1/products?page_token={encode_token(each)}") for each in ids]
    kinds = {
        "GET /v1/products/{id}": read_products(ids),
        "GET /v1/products (pages of 20)": pages,
        "GET /v1/orders/{id}": asyncio.run(_read_orders(shop)),
    }
    return [
        _measure(shop, name, shop.write_requests(requests), seconds)
        for name, requests in kinds.items()
    ]


def read_products(ids: Iterable[int]) -> list[bytes]:
    """Requests that read these products."""
    return [request("GET", f"/v1/products/{product_id}") for product_id in ids]


def _measure(shop: Shop, name: str, file: Path, seconds: float) -> Read:
    closed_loop(shop.system.gateway, file, CLIENTS, min(1, seconds))
    meter = CpuMeter(shop.pids)
    load = closed_loop(shop.system.gateway, file, CLIENTS, seconds)
    used = sum(meter.read(shop.pids).seconds.values())
    return Read(name, load, 1000 * used / max(1, load.responses))


async def _read_orders(shop: Shop) -> list[bytes]:
    async with shop.system.connect("order") as connection:
        rows = await connection.fetch(_ORDERS, SAMPLE)
    tokens = shop.tokens()
    return [request("GET", f"/v1/orders/{row['id']}", tokens[row["user_id"]]) for row in rows]
