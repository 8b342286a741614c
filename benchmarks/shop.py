"""A system with a catalogue and customers, and the orders that were placed with it."""

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uuid_utils.compat import uuid7

from benchmarks import seed, system, workload
from benchmarks.system import System

PRODUCTS = 10_000
USERS = 1_000
_PREPARED = 5_000


class Shop:
    """What measurements send their load to."""

    def __init__(self, running: System, customers: dict[int, str], products: int) -> None:
        self.system = running
        self.pids = running.pids()
        self.customers = customers
        """E-mail address of each, by id; their password is the administrator's."""
        self.products = products
        """Product ids are 1 to this."""
        self.placed = 0
        """Orders that were answered with 201."""
        self.unknown = 0
        """Requests to place an order of which no answer is known: these may have been stored."""
        self.past = 0
        """Orders that were written straight into the databases."""
        self.complaints = list[str]()
        """What went wrong so far; anything makes the run void."""
        self._numbers = itertools.count(1)

    def tokens(self) -> dict[int, str]:
        """A fresh access token of each customer, by id; they expire after a quarter of an hour."""
        return {user_id: self.system.token(user_id) for user_id in self.customers}

    def file(self, requests: list[bytes]) -> Path:
        """A file with these requests."""
        path = self.system.run_dir / f"requests-{next(self._numbers)}"
        return workload.write(path, requests)

    def orders(self) -> Path:
        """A file of requests that place orders, others each time."""
        number = next(self._numbers)
        tokens = list(self.tokens().values())
        return self.file(workload.orders(tokens, self.products, _PREPARED, seed=number))

    def account(self, good: int, unknown: int, stored: int) -> None:
        """Remember orders placed; complains unless those accepted, and none besides, are stored."""
        self.placed += good
        self.unknown += unknown
        if not good <= stored <= good + unknown:
            self.complaints.append(
                f"{stored} orders were stored of {good} accepted and {unknown} without an answer"
            )


def now() -> uuid.UUID:
    """Orders placed from now on have greater ids."""
    return uuid7()


@contextmanager
def opened(run_dir: Path, **variables: str) -> Iterator[Shop]:
    """A shop on a system of its own inside the block; `variables` are the services' settings."""
    with system.running(run_dir, **variables) as running:
        asyncio.run(seed.products(running, 1, PRODUCTS))
        customers = asyncio.run(seed.users(running, USERS))
        yield Shop(running, customers, PRODUCTS)
