"""Connections to a real broker: kept, opened again with back-off, and closed."""

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import stamina
import structlog
from aio_pika.abc import AbstractConnection
from stamina.instrumentation import set_on_retry_hooks

from service_kit.errors import Unavailable
from service_kit.pacing import log_retry
from service_kit.rabbitmq import connection as connections
from service_kit.rabbitmq.connection import (
    RECONNECT_SECONDS,
    fail_when_closed,
    keep_connected,
    open_channel,
    open_connection,
)
from tests.integration.environment import management
from tests.integration.rabbitmq.tls_proxy import behind_tls
from tests.support.infrastructure import Broker
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually, free_port

Logged = list[structlog.typing.EventDict]


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What is logged, retries included, as in a service."""
    set_on_retry_hooks([log_retry])
    with structlog.testing.capture_logs() as entries:
        yield entries
    set_on_retry_hooks(None)


def events(logged: Logged) -> list[str]:
    return [entry["event"] for entry in logged]


async def test_a_session_that_returns_ends_the_connection(broker: Broker, logged: Logged) -> None:
    seen: list[AbstractConnection] = []

    async def session(connection: AbstractConnection) -> None:
        seen.append(connection)

    await keep_connected(broker.url, "test", session)
    assert [connection.is_closed for connection in seen] == [True]
    assert events(logged) == ["broker connected"]


async def test_a_session_that_fails_is_run_again_on_a_new_connection(
    broker: Broker, logged: Logged
) -> None:
    seen: list[AbstractConnection] = []

    async def session(connection: AbstractConnection) -> None:
        seen.append(connection)
        if len(seen) == 1:
            raise ConnectionError("lost")

    await keep_connected(broker.url, "test", session)
    first, second = seen
    assert first is not second
    assert first.is_closed
    connected = {"connection": "test", "event": "broker connected", "log_level": "info"}
    lost = {
        "connection": "test",
        "error": "ConnectionError('lost')",
        "event": "broker connection lost",
        "log_level": "warning",
    }
    assert logged == [connected, lost, connected]


async def test_an_error_of_the_session_that_is_not_the_brokers_ends_it(broker: Broker) -> None:
    async def session(_: AbstractConnection) -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        await keep_connected(broker.url, "test", session)


async def test_between_sessions_that_fail_at_once_there_is_a_pause(
    broker: Broker, logged: Logged
) -> None:
    starts: list[float] = []

    async def session(connection: AbstractConnection) -> None:
        starts.append(time.monotonic())
        if len(starts) < 4:
            raise ConnectionError("closed at once")

    await keep_connected(broker.url, "test", session)
    assert min(later - earlier for earlier, later in pairwise(starts)) >= RECONNECT_SECONDS
    assert events(logged).count("broker connection lost") == 3


async def test_a_broker_that_falls_silent_during_a_call_is_connected_to_again(
    broker: Broker, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEARTBEAT_SECONDS", 1)
    sessions = 0
    async with proxied(broker.url) as (proxy, url):

        async def session(connection: AbstractConnection) -> None:
            nonlocal sessions
            sessions += 1
            channel = await connection.channel()
            if sessions == 1:
                proxy.pause()
                await channel.declare_queue("unanswered", exclusive=True)

        kept = asyncio.create_task(keep_connected(url, "test", session))
        await eventually(lambda: _count(logged, "broker connection lost"))
        await proxy.resume()
        async with asyncio.timeout(30):
            await kept
    assert sessions == 2


async def _count(logged: Logged, event: str) -> int:
    return events(logged).count(event)


async def test_attempts_to_connect_pause_longer_and_longer_but_never_over_two_seconds(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise asyncio.CancelledError

    monkeypatch.setattr(stamina._core, "_smart_sleep", sleep)

    async def session(_: AbstractConnection) -> None:
        raise AssertionError("there is no broker")

    with pytest.raises(asyncio.CancelledError):
        await keep_connected(f"amqp://guest:guest@127.0.0.1:{free_port()}/", "test", session)
    assert pauses == sorted(pauses)
    assert 0.1 <= pauses[0] <= 0.2
    assert pauses[-1] == 2.0
    assert set(events(logged)) == {"backing off"}


async def test_a_broker_that_is_unavailable_at_first_is_connected_to_once_it_is_back(
    broker: Broker,
) -> None:
    connected = asyncio.Event()

    async def session(_: AbstractConnection) -> None:
        connected.set()

    async with proxied(broker.url) as (proxy, url):
        await proxy.cut()
        keeping = asyncio.create_task(keep_connected(url, "test", session))
        await asyncio.sleep(0.5)
        assert not connected.is_set()
        await proxy.resume()
        await keeping
    assert connected.is_set()


@pytest.mark.parametrize("state", ["connecting", "in session", "backing off"])
async def test_keeping_a_connection_can_be_cancelled_in_every_state(
    broker: Broker, state: str
) -> None:
    in_session = asyncio.Event()
    seen: list[AbstractConnection] = []

    async def session(connection: AbstractConnection) -> None:
        seen.append(connection)
        in_session.set()
        await asyncio.Event().wait()

    async with proxied(broker.url) as (proxy, url):
        if state == "connecting":
            proxy.pause()  # accepts the connection, and then nothing happens
        elif state == "backing off":
            await proxy.cut()
        keeping = asyncio.create_task(keep_connected(url, "test", session))
        if state == "connecting":
            await proxy.holding()
        elif state == "in session":
            await in_session.wait()
        else:
            await asyncio.sleep(0.5)
        started = time.monotonic()
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        assert time.monotonic() - started < 2
    assert all(connection.is_closed for connection in seen)


@pytest.mark.parametrize("by", ["broker", "network"])
async def test_opening_a_channel_on_a_connection_that_ended_is_a_broker_failure(
    broker: Broker, by: str
) -> None:
    """A session that does it is run again; the library's own error would end the service."""

    async def lose_connection(url: str) -> None:
        async with open_connection(url, "test") as connection:
            channel = await open_channel(connection)
            if by == "broker":
                await page.kill("test")
            else:
                proxy.drop()
            with pytest.raises(ConnectionError):
                await fail_when_closed(connection, channel)
            await open_channel(connection)

    async with proxied(broker.url) as (proxy, url), management(broker) as page:
        with pytest.raises(Unavailable):
            await lose_connection(url)


async def test_a_watched_channel_fails_when_it_closes_and_not_before(broker: Broker) -> None:
    async with open_connection(broker.url, "test") as connection:
        channel, other = await open_channel(connection), await open_channel(connection)
        await fail_when_closed(connection, channel, other, seconds=0.05)
        watching = asyncio.create_task(fail_when_closed(connection, channel, other))
        await asyncio.sleep(0.05)
        assert not watching.done()
        await other.close()
        with pytest.raises(ConnectionError):
            await watching


async def test_a_connection_is_unavailable_if_its_channel_fails(broker: Broker) -> None:
    async def declare() -> None:
        async with open_connection(broker.url, "test") as connection:
            channel = await open_channel(connection)
            await channel.declare_queue("nothing", passive=True)

    with pytest.raises(Unavailable, match="no queue 'nothing'"):
        await declare()


async def test_a_connection_has_its_name_in_the_management_page(broker: Broker) -> None:
    async with open_connection(broker.url, "a name"), management(broker) as page:
        await eventually(lambda: page.connections("a name"), within=15)


async def test_a_broker_with_an_untrusted_certificate_is_refused(
    broker: Broker, tmp_path: Path
) -> None:
    async with behind_tls(broker.url, tmp_path) as (url, _):
        with pytest.raises(Unavailable, match="certificate verify failed"):
            async with open_connection(url, "test"):
                pass
