"""One user service per file, on a fresh database."""

from collections.abc import AsyncIterator

import pytest_asyncio

from service_kit.postgres.migrations import migrate
from tests.service.users.user_service import CHEAP, Service, running
from user_service.passwords import Passwords


@pytest_asyncio.fixture(scope="module")
async def service(user_database_url: str) -> AsyncIterator[Service]:
    """The user service, with hashes that cost little."""
    await migrate(user_database_url, "user_service")
    with Passwords(**CHEAP, workers=2, queue=100) as passwords:
        async with running(user_database_url, passwords) as started:
            yield started
