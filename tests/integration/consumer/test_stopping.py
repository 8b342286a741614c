"""A consumer that stops finishes its batch, or gives it up in time, and takes no more."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

import consumer_service.__main__ as consumer_main
from consumer_service import subscriber
from tests.integration.environment import Environment, consumer_count, ready
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually


async def test_stopping_finishes_and_acks_the_current_batch_and_takes_no_more(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    async with proxied(environment.orders.address) as (proxy, address), AsyncExitStack() as stack:
        await stack.enter_async_context(environment.consuming(orders=address))
        assert await environment.statuses(await environment.place({product: 1})) == {"CONFIRMED"}
        proxy.pause()
        current = await environment.place({product: 1})
        await proxy.holding()  # stock is deducted, and the settlement hangs
        fetched = await environment.place({product: 1}, times=3)
        await environment.published()
        await environment.queued(0)
        stopping = asyncio.create_task(stack.aclose())

        async def left_in_queue() -> int:
            fetched.extend(await environment.place({product: 1}))
            await environment.published()
            return await ready(environment.broker)

        await eventually(left_in_queue)
        await proxy.resume()
        await stopping
    assert await environment.statuses(current, wait=0) == {"CONFIRMED"}
    assert await environment.statuses(fetched, wait=0) == {"PENDING"}
    assert await ready(environment.broker) == len(fetched)


async def test_an_idle_consumer_stops_at_once(environment: Environment) -> None:
    async with environment.consuming():
        await eventually(lambda: consumer_count(environment.broker))
        started = time.monotonic()
    assert time.monotonic() - started < 2


async def test_stopping_gives_up_a_batch_that_cannot_be_finished_and_it_is_delivered_again(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "DRAIN_SECONDS", 0.3)
    monkeypatch.setattr(consumer_main, "DRAIN_SECONDS", 0.3)
    product = await environment.product(100)
    async with proxied(environment.orders.address) as (proxy, address):
        await proxy.cut()
        placed = await environment.place({product: 1}, times=5)
        await environment.queued(5)
        async with environment.consuming(orders=address):
            await eventually(lambda: environment.stock(product), lambda stock: stock < 100)
            started = time.monotonic()
        assert time.monotonic() - started < 3
    await environment.queued(5)
    async with environment.consuming():
        assert await environment.statuses(placed) == {"CONFIRMED"}
    assert await environment.stock(product) == 95
