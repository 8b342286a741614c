"""Ports for the servers of tests, different in each worker of pytest-xdist."""

import itertools
import os
import random
from collections.abc import Iterator

from launcher.ports import is_free

_PORTS = range(10_000, 20_000)
"""Below the ports that the launcher picks and those that the kernel assigns."""


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = _PORTS[worker % workers :: workers]
    return itertools.cycle(random.sample(mine, k=len(mine)))


_CANDIDATES = _candidates()


def free_port() -> int:
    """A TCP port of the loopback interface that is not in use and was not returned recently.

    No outgoing connection takes it while its server restarts.
    """
    return next(port for port in _CANDIDATES if is_free(port))


def free_ports(count: int) -> list[int]:
    """`count` different ports."""
    return [free_port() for _ in range(count)]
