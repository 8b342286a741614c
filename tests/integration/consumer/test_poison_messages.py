"""What can never be handled becomes a dead letter with its reason, and the rest is handled."""

import json
import uuid

import pytest
from sqlalchemy import text

from consumer_service import operations
from proto.dead_letters import REASON_HEADER
from proto.events import DEAD_LETTER_QUEUE, ORDER_CANCELLED, ORDER_CREATED
from proto.limits import MAX_ORDER_ITEMS, MAX_QUANTITY
from tests.integration.environment import (
    Environment,
    Json,
    dead_letter,
    envelope,
    management,
    put,
    queued_messages,
    ready,
)
from tests.support.waiting import eventually

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def poison(product: int) -> dict[str, tuple[bytes | Json, str]]:
    """Messages that can never be handled, each with the reason of its dead letter."""
    order = uuid.uuid4()
    valid = envelope(ORDER_CREATED, order, {product: 1})
    nested = b"[" * 100_000 + b"]" * 100_000

    def with_data(**data: object) -> Json:
        return {**valid, "data": {**valid["data"], **data}}

    def with_quantity(quantity: object) -> Json:
        return envelope(ORDER_CREATED, order, {product: quantity})

    def unpaired_surrogate() -> bytes:
        return json.dumps(valid).encode().replace(b"order.c", b"\\ud800")

    return {
        "nothing": (b"", "unreadable"),
        "no JSON": (b"order 17, please", "unreadable"),
        "no UTF-8": (b'{"specversion":"\xff"}', "unreadable"),
        "half a character": (unpaired_surrogate(), "unreadable"),
        "too deep": (b'{"specversion":"1.0","data":' + nested + b"}", "unreadable"),
        "no object": (b"[]", "unreadable"),
        "no data": ({key: valid[key] for key in valid if key != "data"}, "unreadable"),
        "no order": (with_data(order_id="17"), "unreadable"),
        "no items": (with_data(items=[]), "unreadable"),
        "more items than an order has": (
            envelope(ORDER_CREATED, order, dict.fromkeys(range(1, MAX_ORDER_ITEMS + 2), 1)),
            "unreadable",
        ),
        "no product": (with_data(items=[{"quantity": 1}]), "unreadable"),
        "quantity 0": (with_quantity(0), "unreadable"),
        "quantity below 0": (with_quantity(-1), "unreadable"),
        "quantity above the limit": (with_quantity(MAX_QUANTITY + 1), "unreadable"),
        "quantity beyond any integer": (with_quantity(10**400), "unreadable"),
        "half a unit": (with_quantity(0.5), "unreadable"),
        "another specversion": ({**valid, "specversion": "2.0"}, "unknown_version"),
        "another dataschema": ({**valid, "dataschema": "urn:order:v2"}, "unknown_version"),
        "no dataschema": ({**valid, "dataschema": ""}, "unknown_version"),
        "a type that the consumer does not handle": (
            {**valid, "type": "order.confirmed"},
            "unknown_type",
        ),
        "a type that does not exist": ({**valid, "type": "order.eaten"}, "unknown_type"),
        "a product that does not exist": (
            envelope(ORDER_CREATED, order, {product: 1, 2**63 - 1: 1}),
            "unknown_product",
        ),
        "an order that does not exist": (
            envelope(ORDER_CREATED, uuid.uuid4(), {product: 1}),
            "unknown_order",
        ),
        "the cancellation of an order that does not exist": (
            envelope(ORDER_CANCELLED, uuid.uuid4(), {product: 1}),
            "unknown_order",
        ),
    }


async def test_poison_messages_become_dead_letters_and_the_rest_is_handled(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    before = await environment.place({product: 1}, times=3)
    await environment.queued(3)
    cases = poison(product)
    ids = await put(environment.broker, *(body for body, _ in cases.values()))
    after = await environment.place({product: 1}, times=3)
    await environment.queued(6 + len(cases))
    async with environment.consuming():
        assert await environment.statuses([*before, *after]) == {"CONFIRMED"}

        async def dead_letters() -> dict[str, Json]:
            return await queued_messages(environment.broker, DEAD_LETTER_QUEUE)

        letters = await eventually(dead_letters, lambda found: len(found) == len(cases))
    reasons = {
        case: letters[message_id]["properties"]["headers"][REASON_HEADER].partition(":")[0]
        for case, message_id in zip(cases, ids, strict=True)
    }
    assert reasons == {case: reason for case, (_, reason) in cases.items()}
    assert await ready(environment.broker) == 0
    assert await environment.stock(product) == 100 - 6


async def test_stock_deducted_for_an_order_that_nobody_placed_is_restored(
    environment: Environment, consumer: str
) -> None:
    product = await environment.product(10)
    (message_id,) = await put(
        environment.broker, envelope(ORDER_CREATED, uuid.uuid4(), {product: 4})
    )
    await dead_letter(environment.broker, message_id)
    assert await environment.movements(product) == [10, -4, 4]


class NotUtf8(str):
    """A header that another client wrote in another encoding."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return b"\xff"


async def test_a_dead_letter_keeps_what_is_needed_to_publish_it_again(
    environment: Environment, consumer: str
) -> None:
    headers: Json = {
        "traceparent": TRACEPARENT,
        "x-request-id": "request-1",
        # As on a message that was a dead letter before.
        "x-death": [{"count": 1, "queue": NotUtf8(), "routing-keys": [ORDER_CREATED]}],
        "number": 2**40,
        "fraction": 0.5,
        "flag": True,
        "nothing": None,
        "other-bytes": NotUtf8(),
    }
    (message_id,) = await put(environment.broker, b"no JSON", **headers)
    letter = await dead_letter(environment.broker, message_id)
    assert letter["payload"] == "no JSON"
    assert letter["routing_key"] == ORDER_CREATED
    assert letter["properties"]["delivery_mode"] == 2
    kept = letter["properties"]["headers"]
    assert kept["traceparent"] == TRACEPARENT
    assert set(headers) <= set(kept)


async def test_a_dead_letter_that_no_queue_takes_is_published_once_the_queue_exists_again(
    environment: Environment, consumer: str
) -> None:
    async with management(environment.broker) as page:
        await page.delete("queues", DEAD_LETTER_QUEUE)
        (message_id,) = await put(environment.broker, b"no JSON")
        await eventually(lambda: page.get("queues", DEAD_LETTER_QUEUE))
    await dead_letter(environment.broker, message_id)


async def test_an_event_that_inventory_refuses_is_isolated_and_the_rest_is_handled(
    environment: Environment,
) -> None:
    product = await environment.product(100)
    body = envelope(ORDER_CREATED, uuid.uuid4())
    body["data"]["items"] = [{"product_id": product, "quantity": 600_000}] * 2
    placed = await environment.place({product: 1}, times=3)
    (message_id,) = await put(environment.broker, body)
    placed += await environment.place({product: 1}, times=3)
    await environment.queued(7)
    async with environment.consuming():
        assert await environment.statuses(placed) == {"CONFIRMED"}
        letter = await dead_letter(environment.broker, message_id)
    assert letter["properties"]["headers"][REASON_HEADER].startswith("invalid_quantity")
    assert await environment.stock(product) == 100 - 6


async def test_an_event_for_which_inventory_returns_internal_is_isolated_and_the_rest_is_handled(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_INTERNAL_ERRORS", 2)
    product, broken = await environment.product(100), await environment.product(100)
    async with environment.inventory.engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE products ADD CHECK (id <> {broken} OR stock >= 100) NOT VALID")
        )
    placed = await environment.place({product: 1}, times=5)
    (failing,) = await environment.place({product: 1, broken: 1})
    placed += await environment.place({product: 1}, times=5)
    await environment.queued(11)
    async with environment.consuming():
        assert await environment.statuses(placed) == {"CONFIRMED"}

        async def dead_letters() -> list[Json]:
            found = await queued_messages(environment.broker, DEAD_LETTER_QUEUE)
            return list(found.values())

        (letter,) = await eventually(dead_letters)
    assert json.loads(letter["payload"])["subject"] == failing
    assert letter["properties"]["headers"][REASON_HEADER].startswith("internal")
    assert await environment.stock(product) == 100 - 10
    assert await environment.statuses([failing], wait=0) == {"PENDING"}
