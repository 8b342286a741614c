"""What a system that has been used for long costs: beside an empty one, and by itself."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import history, load, measure, seed, workload
from benchmarks.backlog import Backlog, drain
from benchmarks.endurance import Endurance, endure
from benchmarks.measure import Measurement
from benchmarks.shop import Shop
from service_kit.pagination import encode_token

CLIENTS = 64
PRODUCTS_SHARE = 10
"""One product in the catalogue for so many orders, but not fewer than the shop began with."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How far the shop is to grow, and how long each measurement takes."""

    stored_orders: Sequence[int]
    pairs: int
    seconds: float
    backlog: int
    endurance: int


FULL = Sizes((0, 10_000, 100_000, 300_000, 1_000_000), 3, 6, 100_000, 200_000)
TINY = Sizes((0, 500), 1, 1, 300, 300)


@dataclass(frozen=True)
class Step:
    """The grown system and the empty one, in turns."""

    stored: int
    products: int
    grown: list[Measurement]
    empty: list[Measurement]
    throughput_ratio: float
    """Median of the pairs: settled a second, grown against empty."""


@dataclass(frozen=True)
class Page:
    """How long a page of 100 takes at some depth: median of one client's requests, in ms."""

    name: str
    depth: int
    milliseconds: float


@dataclass(frozen=True)
class Growth:
    """All that was found."""

    steps: list[Step]
    pages: list[Page]
    backlog: Backlog
    endurance: Endurance


def run(empty: Shop, grown: Shop, sizes: Sizes, tell: Tell) -> Growth:
    """Let `grown` grow and measure it beside `empty`; both hold nothing but a catalogue."""
    steps = []
    for before, stored in zip((0, *sizes.stored_orders), sizes.stored_orders, strict=False):
        asyncio.run(_grow(grown, before, stored, tell))
        steps.append(_step(empty, grown, stored, sizes, tell))
    tell("pages at several depths")
    pages = _pages(grown, sizes.seconds / 3)
    return Growth(
        steps,
        pages,
        backlog=drain(grown, sizes.backlog, tell),
        endurance=endure(grown, sizes.endurance, sizes.seconds, tell),
    )


async def _grow(shop: Shop, before: int, stored: int, tell: Tell) -> None:
    products = max(shop.products, stored // PRODUCTS_SHARE)
    if products > shop.products:
        await seed.products(shop.system, shop.products + 1, products)
        shop.products = products
    if stored > before:
        await history.write(
            shop, before + 1, stored, lambda n: tell(f"writing past orders: {n:,} of {stored:,}")
        )
        shop.past = stored


def _step(empty: Shop, grown: Shop, stored: int, sizes: Sizes, tell: Tell) -> Step:
    found: dict[int, list[Measurement]] = {id(empty): [], id(grown): []}
    for shop in {id(empty): empty, id(grown): grown}.values():
        measure.warm_up(shop, CLIENTS, sizes.seconds)
    for pair in range(sizes.pairs):
        tell(f"{stored:,} orders stored, beside an empty system: {pair + 1} of {sizes.pairs}")
        for shop in (empty, grown) if pair % 2 else (grown, empty):
            found[id(shop)].append(measure.closed(shop, CLIENTS, sizes.seconds))
    many, none = found[id(grown)], found[id(empty)]
    ratios = [
        one.settled_per_second / max(1, other.settled_per_second)
        for one, other in zip(many, none, strict=True)
    ]
    return Step(stored, grown.products, many, none, median(ratios))


def _pages(shop: Shop, seconds: float) -> list[Page]:
    admin = asyncio.run(_admin(shop))
    products = [int(shop.products * share) for share in (0, 0.5, 0.99)]
    orders = asyncio.run(_keys_of_orders(shop))
    wanted = [
        ("GET /v1/products", depth, f"/v1/products?page_size=100&page_token={encode_token(depth)}")
        for depth in products
    ]
    wanted += [
        ("GET /v1/orders", depth, f"/v1/orders?page_size=100&page_token={encode_token(key)}")
        for depth, key in orders
    ]
    found = []
    for name, depth, path in wanted:
        file = shop.file([workload.request("GET", path, admin)])
        outcome = load.own(shop.system.gateway, file, max(0.5, seconds), clients=1)
        if outcome.errors:
            raise RuntimeError(f"{path}: {outcome}")
        found.append(Page(name, depth, outcome.milliseconds["p50"]))
    return found


async def _admin(shop: Shop) -> str:
    connection = await shop.system.connect("user")
    try:
        user_id = await connection.fetchval("SELECT min(id) FROM users WHERE role = 'ADMIN'")
    finally:
        await connection.close()
    return shop.system.token(user_id, "admin")


async def _keys_of_orders(shop: Shop) -> list[tuple[int, str]]:
    """Order ids at several depths of the list, which begins with the newest."""
    connection = await shop.system.connect("order")
    try:
        count = await connection.fetchval("SELECT count(*) FROM orders")
        depths = [int(count * share) for share in (0, 0.5, 0.99)]
        statement = "SELECT id::text FROM orders ORDER BY id DESC OFFSET $1 LIMIT 1"
        return [(depth, await connection.fetchval(statement, depth)) for depth in depths]
    finally:
        await connection.close()
