"""Options of the fault matrix, and a real PostgreSQL and RabbitMQ for the whole session."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.infrastructure import Broker, Infrastructure, start_infrastructure
from tests.support.workers import GroupScheduler


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fault matrix."""
    parser.addoption(
        "--faults", action="store_true", help="run the whole fault matrix instead of a selection"
    )
    parser.addoption(
        "--seed",
        default=dt.datetime.now(dt.UTC).date().isoformat(),
        help="selects the cases of the fault matrix and their schedules; default: the date",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Show the seed, with which the run can be repeated."""
    return f"fault matrix: --seed {config.getoption('--seed')}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduler:
    """Keep tests that share a system in one worker."""
    return GroupScheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test a unique id, because a worker runs each id once.

    Schemathesis names its tests by operation, which pytest leaves out of the ids since 9.2.
    """
    for item in items:
        operation = item.name.partition("[")[2].removesuffix("]")
        if operation and item.id.params is None:
            item._id = item.id.with_params(operation)
    assert len({item.nodeid for item in items}) == len(items)


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """PostgreSQL and RabbitMQ, started by `start-services.sh --infra-only`."""
    with start_infrastructure(tmp_path_factory.mktemp("infra")) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def user_database_url(infrastructure: Infrastructure) -> AsyncIterator[str]:
    """A fresh database for the user service."""
    async with infrastructure.database() as url:
        yield url


@pytest_asyncio.fixture(scope="module")
async def inventory_database_url(infrastructure: Infrastructure) -> AsyncIterator[str]:
    """A fresh database for the inventory service."""
    async with infrastructure.database() as url:
        yield url


@pytest_asyncio.fixture(scope="module")
async def order_database_url(infrastructure: Infrastructure) -> AsyncIterator[str]:
    """A fresh database for the order service."""
    async with infrastructure.database() as url:
        yield url


@pytest_asyncio.fixture(scope="module")
async def broker(infrastructure: Infrastructure) -> AsyncIterator[Broker]:
    """A fresh virtual host of the broker."""
    async with infrastructure.virtual_host() as virtual_host:
        yield virtual_host
