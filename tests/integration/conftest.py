"""Services around one broker; each test starts its own consumers."""

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import structlog

from producer_service import publisher
from proto import user_pb2 as user_pb
from tests.integration.environment import Environment, publish_probe
from tests.support.infrastructure import Broker
from tests.support.services import (
    ask,
    inventory_running,
    orders_running,
    producer_running,
    users_running,
)


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Tracebacks without colours and variables, which take a second each."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@pytest_asyncio.fixture(scope="module")
async def environment(
    broker: Broker, user_database_url: str, inventory_database_url: str, order_database_url: str
) -> AsyncIterator[Environment]:
    """Users, inventory, producer and orders, with one customer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "REDECLARE_SECONDS", 1.0)
        async with (
            users_running(user_database_url) as users,
            inventory_running(inventory_database_url) as inventory,
            producer_running(broker.url) as (producer_address, producer),
            orders_running(
                order_database_url,
                users_address=users.address,
                inventory_address=inventory.address,
                producer_address=producer_address,
                order_republish_seconds=3600,
            ) as orders,
        ):
            email = f"{uuid.uuid4().hex}@example.com"
            request = user_pb.RegisterUserRequest(email=email, password="a long password", name="A")
            user = await ask(users.stub.RegisterUser, request)
            await publish_probe(producer)
            yield Environment(
                broker,
                user.id,
                users.address,
                producer_address,
                producer,
                inventory,
                orders,
            )
