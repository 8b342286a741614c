"""The timeline of one order, from the data that the services keep."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy import text

from proto.events import AUDIT_QUEUE, DEAD_LETTER_QUEUE, INVENTORY_QUEUE
from service_kit import context
from tests.integration.environment import Environment, purge, queued_messages
from tests.support.cli import CommandResult, run_command, url_of
from tests.support.waiting import eventually, free_port


@pytest_asyncio.fixture(autouse=True)
async def empty_queues(environment: Environment) -> None:
    for queue in (INVENTORY_QUEUE, DEAD_LETTER_QUEUE, AUDIT_QUEUE):
        await purge(environment.broker, queue)


@pytest_asyncio.fixture
async def consumer(environment: Environment) -> AsyncIterator[str]:
    async with environment.consuming() as address:
        yield address


async def show_timeline(environment: Environment, order_id: str, **variables: str) -> CommandResult:
    settings = {
        "ORDER_DATABASE_URL": url_of(environment.orders.engine),
        "INVENTORY_SERVICE_ADDR": environment.inventory.address,
        "RABBITMQ_URL": environment.broker.url,
    }
    return await run_command("order_service", "timeline", order_id, **(settings | variables))


async def placed(environment: Environment, product: int, quantity: int = 2) -> str:
    with context.bound(context.CallContext("request-1")):
        (order_id,) = await environment.place({product: quantity})
    return order_id


def steps(done: CommandResult) -> list[tuple[str, str]]:
    """Where and what, in the order of the table."""
    assert done.code == 0, done
    header, *rows = done.stdout.splitlines()
    where, what, detail = (header.index(name) for name in ("Where", "What", "Detail"))
    return [(row[where:what].strip(), row[what:detail].strip()) for row in rows]


async def test_the_steps_of_an_order_have_times_and_request_ids(
    environment: Environment, consumer: str
) -> None:
    product = await environment.product()
    order_id = await placed(environment, product)
    assert await environment.statuses([order_id]) == {"CONFIRMED"}
    await environment.cancel(order_id)
    await eventually(lambda: environment.movements(product), lambda found: found == [1000, -2, 2])
    await environment.published()
    done = await show_timeline(environment, order_id)
    found = steps(done)
    for cause, effect in (
        (("outbox", "order.created stored"), ("broker", "order.created published")),
        (("outbox", "order.created stored"), ("inventory", "sufficient stock")),
        (("ledger", "stock deducted"), ("order", "CONFIRMED")),
        (("order", "CONFIRMED"), ("order", "CANCELLED")),
        (("outbox", "order.confirmed stored"), ("broker", "order.confirmed published")),
        (("order", "CANCELLED"), ("ledger", "stock restored")),
        (("outbox", "order.cancelled stored"), ("broker", "order.cancelled published")),
    ):
        assert found.index(cause) < found.index(effect), done.stdout
    assert len(found) == 12
    assert "request request-1" in done.line("order.created stored")
    assert f"2 of product {product}; total 5.00" in done.line("PENDING")
    day = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    assert all(line.startswith(day) for line in done.stdout.splitlines()[1:])
    assert "+0 ms" in done.stdout


async def test_request_ids_are_shown_after_the_events_were_pruned(
    environment: Environment, consumer: str
) -> None:
    order_id = await placed(environment, await environment.product())
    assert await environment.statuses([order_id]) == {"CONFIRMED"}
    with context.bound(context.CallContext("request-2")):
        await environment.cancel(order_id)
    await environment.published()
    async with environment.orders.engine.begin() as connection:
        await connection.execute(text("DELETE FROM outbox"))
    done = await show_timeline(environment, order_id)
    assert done.line("PENDING").endswith("; total 5.00; request request-1")
    assert done.line("CONFIRMED").endswith("request request-1")
    assert done.line("CANCELLED").endswith("request request-2")
    assert "outbox" not in done.stdout


async def test_a_rejected_order_has_its_shortages(environment: Environment) -> None:
    product = await environment.product(3)
    order_id, other = await placed(environment, product, 2), await placed(environment, product, 3)
    async with environment.consuming():
        assert await environment.statuses([order_id, other]) == {"CONFIRMED", "REJECTED"}
    done = await show_timeline(environment, other)
    assert ("inventory", "insufficient stock") in steps(done)
    assert f"product {product}: 3 requested, 1 available" in done.line("insufficient stock")
    assert f"product {product}: 3 requested, 1 available" in done.line("REJECTED")


async def test_a_dead_letter_and_a_refused_event_are_shown(environment: Environment) -> None:
    product = await environment.product()
    order_id = await placed(environment, product)
    moved = {"id": product, "by": 2**40}
    async with environment.inventory.engine.begin() as connection:
        await connection.execute(text("UPDATE products SET id = id + :by WHERE id = :id"), moved)

    async def letters() -> list[str]:
        return list(await queued_messages(environment.broker, DEAD_LETTER_QUEUE))

    async with environment.consuming():
        (event_id,) = await eventually(letters)
    done = await show_timeline(environment, order_id)
    assert steps(done)[-1] == ("consumer", "order.created is a dead letter")
    assert "unknown_product" in done.line("dead letter")
    assert event_id in done.line("dead letter")
    async with environment.orders.engine.begin() as connection:
        statement = (
            "UPDATE outbox SET sent_at = NULL, attempts = 3, last_error = 'NACKED: refused',"
            " next_attempt_at = now() + interval '1 hour' WHERE order_id = :id"
        )
        await connection.execute(text(statement), {"id": uuid.UUID(order_id)})
    done = await show_timeline(environment, order_id)
    what = "order.created refused, attempt 4 due"
    assert steps(done)[-1] == ("broker", what)
    assert "NACKED: refused" in done.line(what)


async def test_without_a_broker_everything_else_is_shown(environment: Environment) -> None:
    order_id = await placed(environment, await environment.product())
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    done = await show_timeline(environment, order_id, RABBITMQ_URL=url)
    assert done.code == 0
    assert "PENDING" in done.stdout
    assert "dead letters were not searched" in done.stdout


async def test_an_unknown_order_is_reported_in_one_line_with_exit_code_2(
    environment: Environment,
) -> None:
    done = await show_timeline(environment, str(uuid.UUID(int=7)))
    assert done.code == 2
    assert "does not exist" in done.stderr
    assert (await show_timeline(environment, "x")).code == 2
