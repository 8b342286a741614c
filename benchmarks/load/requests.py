"""HTTP requests as files, prepared before a measurement: many users, many products."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

MAX_ITEMS = 5
"""Of an order placed."""

_SEPARATOR = b"\x1e"
"""Between the requests of a file; no request contains it."""


def request(method: str, path: str, token: str = "", body: object = None) -> bytes:
    """An HTTP/1.1 request as sent over the wire."""
    content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def place_orders(tokens: Sequence[str], products: int, count: int, seed: int) -> list[bytes]:
    """Orders of 1 to MAX_ITEMS different products each, by random users."""
    chance = random.Random(seed)
    return [
        request("POST", "/v1/orders", chance.choice(tokens), {"items": _items(chance, products)})
        for _ in range(count)
    ]


def choose_products(chance: random.Random, products: int) -> list[int]:
    """Ids of 1 to MAX_ITEMS different products."""
    return chance.sample(range(1, products + 1), chance.randint(1, MAX_ITEMS))


def _items(chance: random.Random, products: int) -> list[dict[str, int]]:
    return [
        {"product_id": product_id, "quantity": chance.randint(1, 3)}
        for product_id in choose_products(chance, products)
    ]


def write(path: Path, requests: Iterable[bytes]) -> None:
    """Write a file of requests for the load generators."""
    path.write_bytes(_SEPARATOR.join(requests))


def read(path: Path) -> list[bytes]:
    """The requests in a file."""
    return path.read_bytes().split(_SEPARATOR)
