"""Connections to the broker."""

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
def no_garbage_collection() -> Iterator[None]:
    """Garbage is collected only by the test itself."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
async def test_a_failed_connection_leaves_nothing_open_for_the_garbage_collector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A log record of the failure would keep the connection alive while the test runs.
    caplog.set_level(logging.CRITICAL, logger="aiormq")
    with pytest.raises(Unavailable):
        async with open_connection(f"amqp://guest:guest@127.0.0.1:{free_port()}/", "test"):
            pass
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        await asyncio.to_thread(gc.collect)
    assert [str(warning.message) for warning in warned] == []
