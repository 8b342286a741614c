"""`dead-letters list` and `redrive`: dead letters are shown, tried, given back, never lost."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable

import aio_pika
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_service.tables import metadata as inventory_tables
from order_service.tables import metadata as order_tables
from proto import inventory_pb2 as stock_pb
from proto.dead_letters import REASON_HEADER
from proto.events import (
    AUDIT_QUEUE,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    INVENTORY_QUEUE,
    ORDER_CREATED,
)
from service_kit import context
from tests.integration.environment import (
    Environment,
    amqp_channel,
    dead_letter,
    envelope,
    peek,
    put,
    queued_messages,
    ready,
)
from tests.support.cli import CommandResult, run_command
from tests.support.database import contents
from tests.support.services import ask
from tests.support.tcp_proxy import proxied
from tests.support.waiting import eventually, free_port

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def dead_letters(
    environment: Environment, *arguments: str, **variables: str
) -> CommandResult:
    """Run `python -m consumer_service dead-letters` with these arguments."""
    settings = {
        "RABBITMQ_URL": environment.broker.url,
        "INVENTORY_SERVICE_ADDR": environment.inventory.address,
        "ORDER_SERVICE_ADDR": environment.orders.address,
    }
    return await run_command(
        "consumer_service", "dead-letters", *arguments, **(settings | variables)
    )


async def execute(engine: AsyncEngine, statement: str, **parameters: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), parameters)


async def move_product(environment: Environment, before: int, after: int) -> None:
    """Give a product another id in the database: then its orders' product does not exist."""
    for table, column in (("products", "id"), ("stock_movements", "product_id")):
        statement = f"UPDATE {table} SET {column} = :after WHERE {column} = :before"
        await execute(environment.inventory.engine, statement, before=before, after=after)


async def dead_order(environment: Environment, product: int, quantity: int = 2) -> tuple[str, str]:
    """An order whose event is a dead letter (its product did not exist), and the event's id."""
    with context.bound(context.CallContext("request-1", TRACEPARENT)):
        (order_id,) = await environment.place({product: quantity})
    await environment.published()
    moved = product + 2**40
    await move_product(environment, product, moved)

    async def find() -> str | None:
        letters = await queued_messages(environment.broker, DEAD_LETTER_QUEUE)
        return next((key for key, each in letters.items() if order_id in each["payload"]), None)

    async with environment.consuming():
        event_id = await eventually(find)
    await move_product(environment, moved, product)
    assert event_id is not None
    return order_id, event_id


async def unreadable_letter(environment: Environment) -> str:
    """The id of a dead letter that is not an event."""
    (message_id,) = await put(environment.broker, b"no event at all")
    async with environment.consuming():
        await dead_letter(environment.broker, message_id)
    return message_id


def dead_count(environment: Environment) -> Callable[[], Awaitable[int]]:
    return lambda: ready(environment.broker, DEAD_LETTER_QUEUE)


async def test_the_list_shows_each_with_its_reason_and_leaves_it_in_the_queue(
    environment: Environment,
) -> None:
    order_id, event_id = await dead_order(environment, await environment.product())
    unreadable = await unreadable_letter(environment)
    for _ in range(3):
        done = await dead_letters(environment, "list")
        assert done.code == 0, done
        line = done.line(event_id)
        assert ORDER_CREATED in line
        assert order_id in line
        assert "unknown_product" in line
        assert "unreadable" in done.line(unreadable)
        assert "2 shown" in done.stdout
    assert await eventually(dead_count(environment), lambda count: count == 2)
    done = await dead_letters(environment, "list", "--reason", "unreadable")
    assert event_id not in done.stdout
    assert "1 shown" in done.stdout
    assert event_id in (await dead_letters(environment, "list", "--order", order_id)).stdout
    done = await dead_letters(environment, "list", "--limit", "1")
    assert "1 shown, 1 more were not read" in done.stdout


async def test_one_is_redriven_unchanged_under_its_own_id_and_the_others_stay(
    environment: Environment,
) -> None:
    product = await environment.product(10)
    order_id, event_id = await dead_order(environment, product)
    other_order, other = await dead_order(environment, product)
    before = (await queued_messages(environment.broker, DEAD_LETTER_QUEUE))[event_id]["properties"]
    done = await dead_letters(environment, "redrive", event_id)
    assert done.code == 0, done
    assert done.line(event_id).endswith("redriven")
    assert "1 redriven, 0 refused" in done.stdout
    async with environment.consuming():
        assert await environment.statuses([order_id]) == {"CONFIRMED"}
    assert await environment.stock(product) == 8
    assert await eventually(dead_count(environment), lambda count: count == 1)
    assert set(await queued_messages(environment.broker, DEAD_LETTER_QUEUE)) == {other}
    assert await environment.statuses([other_order], wait=0) == {"PENDING"}
    copies = [
        each
        for each in await peek(environment.broker, AUDIT_QUEUE)
        if each["properties"]["message_id"] == event_id
    ]
    assert len(copies) == 2
    assert copies[0]["payload"] == copies[1]["payload"]
    first, again = ({**each["properties"], "priority": 0} for each in copies)
    assert first == again
    assert before["headers"][REASON_HEADER].startswith("unknown_product")
    assert again["headers"] == {"traceparent": TRACEPARENT, "x-request-id": "request-1"}


async def test_all_are_redriven_and_one_that_still_cannot_be_handled_returns(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    orders = [(await dead_order(environment, product))[0] for _ in range(2)]
    unreadable = await unreadable_letter(environment)
    done = await dead_letters(environment, "redrive", "--all")
    assert "3 redriven, 0 refused" in done.stdout
    async with environment.consuming():
        assert await environment.statuses(orders) == {"CONFIRMED"}
        await dead_letter(environment.broker, unreadable)
    assert await environment.stock(product) == 96
    assert await eventually(dead_count(environment), lambda count: count == 1)


async def test_some_are_selected_by_order_or_reason(environment: Environment) -> None:
    product = await environment.product(100)
    first, _ = await dead_order(environment, product)
    second, _ = await dead_order(environment, product)
    unreadable = await unreadable_letter(environment)
    async with environment.consuming():
        await dead_letters(environment, "redrive", "--order", first)
        assert await environment.statuses([first]) == {"CONFIRMED"}
        assert await environment.statuses([second], wait=0) == {"PENDING"}
        await dead_letters(environment, "redrive", "--reason", "unknown_product")
        assert await environment.statuses([second]) == {"CONFIRMED"}
    assert set(await queued_messages(environment.broker, DEAD_LETTER_QUEUE)) == {unreadable}


async def test_redriving_an_event_twice_changes_nothing_more(environment: Environment) -> None:
    """So a crash between publish and ack, which leaves the letter in its queue, does no harm."""
    product = await environment.product(10)
    order_id, event_id = await dead_order(environment, product)
    letter = (await queued_messages(environment.broker, DEAD_LETTER_QUEUE))[event_id]
    await dead_letters(environment, "redrive", event_id)
    async with environment.consuming():
        assert await environment.statuses([order_id]) == {"CONFIRMED"}
    async with amqp_channel(environment.broker) as channel:
        exchange = await channel.get_exchange(DEAD_LETTER_EXCHANGE)
        copy = aio_pika.Message(letter["payload"].encode(), message_id=event_id)
        await exchange.publish(copy, ORDER_CREATED)
    done = await dead_letters(environment, "redrive", "--dry-run", event_id)
    assert "no stock moves: DEDUCTED before; the order is then CONFIRMED" in done.stdout
    await dead_letters(environment, "redrive", event_id)
    async with environment.consuming():
        await unreadable_letter(environment)
    assert await environment.movements(product) == [10, -2]


async def test_a_dry_run_shows_what_each_would_do_and_changes_nothing(
    environment: Environment,
) -> None:
    product = await environment.product(5)
    first, _ = await dead_order(environment, product, 3)
    second, _ = await dead_order(environment, product, 3)
    missing = await environment.product()
    unknown, _ = await dead_order(environment, missing)
    cancelled, _ = await dead_order(environment, product, 1)
    await environment.cancel(cancelled)
    async with environment.consuming():
        await environment.released(cancelled)
    unreadable = await unreadable_letter(environment)
    (nobodys,) = await put(environment.broker, envelope(ORDER_CREATED, uuid.uuid4(), {product: 1}))
    async with environment.consuming():
        await dead_letter(environment.broker, nobodys)
    await move_product(environment, missing, missing + 2**40)
    before = await contents(environment.inventory.engine, inventory_tables)
    orders_before = await contents(environment.orders.engine, order_tables)
    done = await dead_letters(environment, "redrive", "--all", "--dry-run")
    assert done.code == 0, done
    deducts = f"deducts 3 of product {product}; the order is then CONFIRMED"
    assert done.line(first).endswith(deducts)
    short = f"no stock moves: product {product} has 2 of 3; the order is then REJECTED"
    assert done.line(second).endswith(short)
    assert "dead again: unknown_product" in done.line(unknown)
    assert done.line(cancelled).endswith("no stock moves: CANCELLED before")
    assert "dead again: unreadable" in done.line(unreadable)
    assert done.line(nobodys).endswith("no stock moves: RESTORED before")
    assert "nothing was changed" in done.stdout
    assert await contents(environment.inventory.engine, inventory_tables) == before
    assert await contents(environment.orders.engine, order_tables) == orders_before
    assert await eventually(dead_count(environment), lambda count: count == 6)
    assert await ready(environment.broker) == 0


async def test_an_event_that_no_queue_takes_stays_and_is_reported(environment: Environment) -> None:
    async with amqp_channel(environment.broker) as channel:
        exchange = await channel.get_exchange(DEAD_LETTER_EXCHANGE)
        for number in range(2):
            body = json.dumps(envelope(ORDER_CREATED, uuid.uuid4())).encode()
            message = aio_pika.Message(body, message_id=f"event-{number}")
            await exchange.publish(message, "order.misspelt")
    done = await dead_letters(environment, "redrive", "--all")
    assert done.code == 1
    assert "0 redriven, 2 refused" in done.stdout
    assert done.line("event-1").endswith("no queue takes 'order.misspelt'")
    assert await eventually(dead_count(environment), lambda count: count == 2)


async def test_a_message_that_the_broker_dead_lettered_has_the_brokers_reason(
    environment: Environment,
) -> None:
    (message_id,) = await put(environment.broker, envelope(ORDER_CREATED, uuid.uuid4(), {1: 1}))
    async with amqp_channel(environment.broker) as channel:
        message = await (await channel.get_queue(INVENTORY_QUEUE)).get()
        await message.reject(requeue=False)
    await dead_letter(environment.broker, message_id)
    done = await dead_letters(environment, "list")
    assert done.line(message_id).endswith("rejected")
    await dead_letters(environment, "redrive", message_id)
    (letter,) = await peek(environment.broker, INVENTORY_QUEUE)
    assert letter["properties"]["message_id"] == message_id
    assert letter["properties"]["headers"].keys() <= {"x-delivery-count"}


async def test_an_event_that_is_not_in_the_queue_is_reported(environment: Environment) -> None:
    done = await dead_letters(environment, "redrive", "no-such-event")
    assert done.code == 1
    assert "not in the queue: no-such-event" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["redrive"], "name events, or give --order, --reason or --all"),
        (["list", "--limit", "0"], "Invalid value for '--limit'"),
    ],
)
async def test_an_invalid_command_line_is_refused(
    environment: Environment, arguments: list[str], error: str
) -> None:
    done = await dead_letters(environment, *arguments)
    assert done.code == 2
    assert error in done.stderr


async def test_an_unavailable_broker_is_one_line_and_exit_code_2(environment: Environment) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    done = await dead_letters(environment, "list", RABBITMQ_URL=url)
    assert done.code == 2
    assert done.stderr.startswith("error: the broker failed: ")


async def test_what_was_redriven_before_the_broker_failed_is_reported(
    environment: Environment,
) -> None:
    async with amqp_channel(environment.broker) as channel:
        exchange = await channel.get_exchange(DEAD_LETTER_EXCHANGE)
        messages = [aio_pika.Message(b"{}", message_id=f"event-{n}") for n in range(1_000)]
        await asyncio.gather(*(exchange.publish(each, ORDER_CREATED) for each in messages))
    async with (
        proxied(environment.broker.url) as (proxy, url),
        amqp_channel(environment.broker) as channel,
    ):
        redriving = asyncio.create_task(
            dead_letters(environment, "redrive", "--all", RABBITMQ_URL=url)
        )

        async def redriven() -> int:
            declared = await channel.declare_queue(INVENTORY_QUEUE, passive=True)
            return declared.declaration_result.message_count or 0

        # A thousand letters are read before the first one is redriven.
        await eventually(redriven, within=60.0, every=0.01)
        await proxy.cut()
        done = await redriving
    assert done.code == 2
    assert done.stderr.startswith("error: the broker failed: ")
    shown = [line for line in done.stdout.splitlines() if line.rstrip().endswith("  redriven")]
    assert f"{len(shown)} redriven, 0 refused" in done.stdout
    # The one in flight when the broker failed may be in the queue as well.
    assert 0 < len(shown) < len(messages)
    assert await ready(environment.broker) - len(shown) in (0, 1)


async def test_a_dry_run_without_inventory_is_one_line_and_exit_code_2(
    environment: Environment,
) -> None:
    async with amqp_channel(environment.broker) as channel:
        exchange = await channel.get_exchange(DEAD_LETTER_EXCHANGE)
        body = json.dumps(envelope(ORDER_CREATED, uuid.uuid4(), {1: 1})).encode()
        await exchange.publish(aio_pika.Message(body, message_id="event"), ORDER_CREATED)
    unavailable = {"INVENTORY_SERVICE_ADDR": f"127.0.0.1:{free_port()}"}
    done = await dead_letters(environment, "redrive", "--all", "--dry-run", **unavailable)
    assert done.code == 2
    assert done.stderr.startswith("error: ")
    assert await eventually(dead_count(environment), lambda count: count == 1)


async def test_inventory_has_no_reservations_for_no_orders(environment: Environment) -> None:
    request = stock_pb.BatchGetReservationsRequest(order_ids=[])
    assert not (await ask(environment.inventory.stub.BatchGetReservations, request)).reservations


async def test_help_explains_what_redriving_does(environment: Environment) -> None:
    done = await dead_letters(environment, "redrive", "--help")
    assert done.code == 0
    for part in ("--all", "--order", "--reason", "--dry-run", "no event is applied twice"):
        assert part in " ".join(done.stdout.split())
