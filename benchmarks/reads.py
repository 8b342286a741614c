"""Reading products and orders, and what a flood of log-ins does to everybody else."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import checks, cpu, load, workload
from benchmarks.load import Outcome
from benchmarks.shop import Shop
from service_kit.pagination import encode_token

CLIENTS = 64
LOGIN_CLIENTS = 32
_SAMPLE = 2_000
_ORDERS = "SELECT id::text, user_id FROM orders ORDER BY id DESC LIMIT $1"


@dataclass(frozen=True)
class Read:
    """A kind of read: what became of it and what it cost, all programs together."""

    name: str
    outcome: Outcome
    cpu_milliseconds: float


@dataclass(frozen=True)
class Flood:
    """Reads and orders at a steady, moderate rate, in calm and while many log in."""

    rate_per_second: float
    """Of reads and of orders each."""
    calm_reads: Outcome
    calm_orders: Outcome
    flooded_reads: Outcome
    flooded_orders: Outcome
    logins: Outcome


def measure(shop: Shop, seconds: float) -> list[Read]:
    """Products, pages of products and orders, at random."""
    choose = random.Random(1)
    anywhere = [choose.randint(1, shop.products) for _ in range(_SAMPLE)]
    files = {
        "GET /v1/products/{id}": shop.file(_products(anywhere)),
        "GET /v1/products (pages of 20)": shop.file(
            [
                workload.request("GET", f"/v1/products?page_token={encode_token(n)}")
                for n in anywhere
            ]
        ),
        "GET /v1/orders/{id}": shop.file(asyncio.run(_orders(shop))),
    }
    return [_read(shop, name, file, seconds) for name, file in files.items()]


def _read(shop: Shop, name: str, file: Path, seconds: float) -> Read:
    load.closed(shop.system.gateway, file, CLIENTS, min(1, seconds))
    before = cpu.seconds(shop.pids)
    outcome = load.closed(shop.system.gateway, file, CLIENTS, seconds)
    spent = sum(cpu.spent_by_program(before, cpu.seconds(shop.pids)).values())
    return Read(name, outcome, 1000 * spent / max(1, outcome.answered))


def flood(shop: Shop, rate: float, seconds: float) -> Flood:
    """Reads and orders at `rate` a second each, first alone, then beside a flood of log-ins."""
    calm_reads, calm_orders, _ = _beside(shop, rate, seconds, login_clients=0)
    reads, orders, logins = _beside(shop, rate, seconds, login_clients=LOGIN_CLIENTS)
    if logins is None:
        raise AssertionError
    return Flood(rate, calm_reads, calm_orders, reads, orders, logins)


def _beside(
    shop: Shop, rate: float, seconds: float, login_clients: int
) -> tuple[Outcome, Outcome, Outcome | None]:
    gateway = shop.system.gateway
    products = shop.file(_products(range(1, min(shop.products, _SAMPLE) + 1)))
    orders, logins = shop.orders(), shop.file(_logins(shop))
    with ThreadPoolExecutor() as pool:
        flooding = (
            pool.submit(load.own, gateway, logins, seconds, clients=login_clients)
            if login_clients
            else None
        )
        reading = pool.submit(load.open_loop, gateway, products, rate, seconds)
        placed = checks.place(shop, lambda: load.open_loop(gateway, orders, rate, seconds))
        return reading.result(), placed, flooding.result() if flooding else None


def _products(ids: "range | list[int]") -> list[bytes]:
    return [workload.request("GET", f"/v1/products/{product_id}") for product_id in ids]


async def _orders(shop: Shop) -> list[bytes]:
    connection = await shop.system.connect("order")
    try:
        rows = await connection.fetch(_ORDERS, _SAMPLE)
    finally:
        await connection.close()
    tokens = shop.tokens()
    return [
        workload.request("GET", f"/v1/orders/{row['id']}", tokens[row["user_id"]]) for row in rows
    ]


def _logins(shop: Shop) -> list[bytes]:
    password = shop.system.environment["ADMIN_PASSWORD"]
    return [
        workload.request("POST", "/v1/auth/login", body={"email": email, "password": password})
        for email in shop.customers.values()
    ]
