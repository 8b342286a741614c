"""Ports for the servers of tests, which workers of pytest-xdist never take from each other."""

import itertools
import os
import random
from collections.abc import Iterator

from launcher.ports import is_free

_OURS = range(10_000, 20_000)
"""Below those that the launcher draws from, and below those that the system hands out by itself."""


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = _OURS[worker % workers :: workers]
    return itertools.cycle(random.sample(mine, k=len(mine)))


_CANDIDATES = _candidates()


def free_port() -> int:
    """A TCP port of the loopback interface that nothing uses now, and none that was given lately.

    No outgoing connection takes it while the server that had it is being started again.
    """
    return next(port for port in _CANDIDATES if is_free(port))


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    return [free_port() for _ in range(count)]
