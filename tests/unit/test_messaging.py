"""Connecting to the broker."""

import asyncio
import gc
import logging
import warnings
from collections.abc import Iterator

import pytest

from service_kit.errors import Unavailable
from service_kit.rabbitmq.connection import open_connection
from tests.support.ports import free_port


@pytest.fixture
def garbage_waits() -> Iterator[None]:
    """Garbage is collected only when the test does so."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("garbage_waits")
async def test_a_failed_connection_leaves_nothing_to_the_thread_that_collects_garbage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A record of the failure would hold the connection as long as the test runs.
    caplog.set_level(logging.CRITICAL, logger="aiormq")
    with pytest.raises(Unavailable):
        async with open_connection(f"amqp://guest:guest@127.0.0.1:{free_port()}/", "test"):
            pass
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        await asyncio.to_thread(gc.collect)
    assert [str(warning.message) for warning in warned] == []
