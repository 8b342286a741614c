"""What a flood of logins does to reads and orders."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import loops
from benchmarks.load.loops import LoadResult
from benchmarks.load.requests import request
from benchmarks.speed.reads import SAMPLE, read_products
from benchmarks.system import checks
from benchmarks.system.shop import Shop

CLIENTS = 32
"""Of the logins."""


@dataclass(frozen=True)
class LoginFlood:
    """Reads and orders at a steady, moderate rate, without logins and with many."""

    rate_per_second: float
    """Of reads and of orders each."""
    calm_reads: LoadResult
    calm_orders: LoadResult
    flooded_reads: LoadResult
    flooded_orders: LoadResult
    logins: LoadResult


def measure(shop: Shop, rate: float, seconds: float) -> LoginFlood:
    """Reads and orders at `rate` per second each, first alone, then during a flood of logins."""
    products = shop.write_requests(read_products(range(1, min(shop.products, SAMPLE) + 1)))
    logins = shop.write_requests(_log_in_all(shop))
    calm_reads, calm_orders = _reads_and_orders(shop, products, shop.write_orders(), rate, seconds)
    orders = shop.write_orders()
    with ThreadPoolExecutor() as pool:
        flood = pool.submit(loops.own_closed_loop, shop.system.gateway, logins, CLIENTS, seconds)
        flooded_reads, flooded_orders = _reads_and_orders(shop, products, orders, rate, seconds)
    return LoginFlood(rate, calm_reads, calm_orders, flooded_reads, flooded_orders, flood.result())


def _reads_and_orders(
    shop: Shop, products: Path, orders: Path, rate: float, seconds: float
) -> tuple[LoadResult, LoadResult]:
    gateway = shop.system.gateway
    with ThreadPoolExecutor() as pool:
        reads = pool.submit(loops.open_loop, gateway, products, rate, seconds)
        placed = checks.send_orders(shop, lambda: loops.open_loop(gateway, orders, rate, seconds))
    return reads.result(), placed


def _log_in_all(shop: Shop) -> list[bytes]:
    password = shop.system.environment["ADMIN_PASSWORD"]
    return [
        request("POST", "/v1/auth/login", body={"email": email, "password": password})
        for email in shop.customers.values()
    ]
