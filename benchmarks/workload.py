"""The requests that a measurement sends: many users, many products, prepared beforehand."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

SEPARATOR = b"\x1e"
"""Between the requests of a file; occurs in none of them."""

MAX_ITEMS = 5


def request(method: str, path: str, token: str = "", body: object = None) -> bytes:
    """An HTTP/1.1 request as it goes over the wire."""
    content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def orders(tokens: Sequence[str], products: int, count: int, seed: int = 1) -> list[bytes]:
    """Orders of 1 to MAX_ITEMS different products each, by any of the users."""
    choose = random.Random(seed)
    return [
        request("POST", "/v1/orders", choose.choice(tokens), {"items": _items(choose, products)})
        for _ in range(count)
    ]


def _items(choose: random.Random, products: int) -> list[dict[str, int]]:
    wanted = choose.sample(range(1, products + 1), choose.randint(1, MAX_ITEMS))
    return [{"product_id": product, "quantity": choose.randint(1, 3)} for product in wanted]


def write(path: Path, requests: Iterable[bytes]) -> Path:
    """Write a file of requests for the load generators; returns `path`."""
    path.write_bytes(SEPARATOR.join(requests))
    return path


def read(path: Path) -> list[bytes]:
    """The requests in a file."""
    return path.read_bytes().split(SEPARATOR)
