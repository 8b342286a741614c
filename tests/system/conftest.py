"""One system for all tests of this folder, started and stopped as users do it."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.support.api_client import ApiClient
from tests.support.system import System, start_system
from tests.system.database import assert_consistent
from tests.system.refusals.checker import RefusalChecker


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """All services, PostgreSQL and RabbitMQ, with the demo catalogue."""
    with start_system(tmp_path_factory.mktemp("system") / "run") as started:
        yield started


@pytest_asyncio.fixture(scope="module", autouse=True)
async def invariants(system: System) -> AsyncIterator[None]:
    """After each module every order is settled, the data is consistent, no error was logged."""
    before = len(system.unexpected_errors())
    yield
    await system.wait_until_settled()
    await assert_consistent(system)
    assert system.unexpected_errors()[before:] == []


@pytest_asyncio.fixture(scope="session")
async def anonymous(system: System) -> AsyncIterator[ApiClient]:
    """A client without a token."""
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(
        base_url=system.gateway_url, timeout=60, limits=limits, trust_env=False
    ) as http:
        yield ApiClient(http)


@pytest_asyncio.fixture(scope="session")
async def admin(system: System, anonymous: ApiClient) -> ApiClient:
    """The administrator."""
    environment = system.environment
    return await anonymous.log_in(environment["ADMIN_EMAIL"], environment["ADMIN_PASSWORD"])


@pytest_asyncio.fixture
async def customer(anonymous: ApiClient) -> ApiClient:
    """A new customer."""
    return await anonymous.register()


@pytest_asyncio.fixture(scope="module")
async def refusals(system: System, anonymous: ApiClient, admin: ApiClient) -> RefusalChecker:
    """Two customers with orders, and the values of their requests."""
    customer, other = await anonymous.register(), await anonymous.register()
    product = await admin.create_product(stock=10, price="12.50")
    own_order = await customer.place_order(product)
    await customer.place_order(product, 1, Idempotency_Key="used")
    other_order = await other.place_order(product)
    values = {
        "product": product,
        "own_order": own_order["id"],
        "other_order": other_order["id"],
        "other_user_id": other.user_id,
        "user_id": customer.user_id,
        "email": customer.email,
    }
    clients = {"anonymous": anonymous, "customer": customer, "admin": admin}
    return RefusalChecker(system, clients, values)
