"""One system for all tests here, started and stopped as users do it."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.support.system import System, running
from tests.system.ledger import accounts_balance
from tests.system.shop import Caller


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """All services, PostgreSQL and RabbitMQ, with the demo catalogue."""
    with running(tmp_path_factory.mktemp("system") / "run") as started:
        yield started


@pytest_asyncio.fixture(scope="module", autouse=True)
async def invariants(system: System) -> AsyncIterator[None]:
    """Whatever a module does to the system, in the end every order is settled and all adds up."""
    before = len(system.faults())
    yield
    await system.at_rest()
    await accounts_balance(system)
    assert system.faults()[before:] == []
    await system.disconnect()


@pytest_asyncio.fixture(scope="session")
async def nobody(system: System) -> AsyncIterator[Caller]:
    """A caller without a token."""
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(
        base_url=system.gateway_url, timeout=60, limits=limits, trust_env=False
    ) as http:
        yield Caller(http)


@pytest_asyncio.fixture(scope="session")
async def admin(system: System, nobody: Caller) -> Caller:
    """The administrator."""
    environment = system.environment
    return await nobody.logged_in(environment["ADMIN_EMAIL"], environment["ADMIN_PASSWORD"])


@pytest_asyncio.fixture
async def customer(nobody: Caller) -> Caller:
    """A new customer."""
    return await nobody.registered()
