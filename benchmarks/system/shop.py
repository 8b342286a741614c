"""A system with products and customers, and a count of the orders placed."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import requests
from benchmarks.system import seed
from benchmarks.system.launch import System, run_system

PRODUCTS = 10_000
CUSTOMERS = 1_000
_PREPARED_ORDERS = 5_000


class Shop:
    """The target of all measurements."""

    def __init__(self, system: System, customers: dict[int, str], products: int) -> None:
        self.system = system
        self.pids = system.pids()
        self.customers = customers
        """E-mail addresses by id; the password of all is the administrator's."""
        self.products = products
        """Product ids are 1 to this number."""
        self.past_orders = 0
        """Orders that were written straight into the databases."""
        self.accepted = 0
        """Orders that were accepted with 201."""
        self.unconfirmed = 0
        """Requests for an order without a successful response: each may have been stored."""
        self.failures = list[str]()
        """What went wrong so far; any entry makes the run void."""
        self._numbers = itertools.count(1)

    def tokens(self) -> dict[int, str]:
        """A new access token of each customer, by id; they are valid for 15 minutes."""
        return {user_id: self.system.token(user_id) for user_id in self.customers}

    def write_requests(self, prepared: list[bytes]) -> Path:
        """A new file with these requests."""
        path = self.system.run_dir / f"requests-{next(self._numbers)}"
        requests.write(path, prepared)
        return path

    def write_orders(self) -> Path:
        """A new file of requests that place orders, different ones each time."""
        seed = next(self._numbers)
        tokens = list(self.tokens().values())
        return self.write_requests(
            requests.place_orders(tokens, self.products, _PREPARED_ORDERS, seed)
        )

    def count_orders(self, *, accepted: int, unconfirmed: int, stored: int) -> None:
        """Add orders placed; a failure unless all those accepted are stored, and no others."""
        self.accepted += accepted
        self.unconfirmed += unconfirmed
        if not accepted <= stored <= accepted + unconfirmed:
            self.failures.append(
                f"{stored} orders were stored; {accepted} were accepted,"
                f" {unconfirmed} had no successful response"
            )


@contextmanager
def open_shop(run_dir: Path, **variables: str) -> Iterator[Shop]:
    """A shop on a separate system inside the block; `variables` are settings of the services."""
    with run_system(run_dir, **variables) as system:
        seed.add_products(system, 1, PRODUCTS)
        yield Shop(system, seed.add_customers(system, CUSTOMERS), PRODUCTS)
