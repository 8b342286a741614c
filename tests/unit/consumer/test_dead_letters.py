"""What a dry run shows for each dead letter, and how a dead letter is written and read."""

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aio_pika.abc import AbstractIncomingMessage
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from consumer_service.clients import InventoryClient, OrderClient
from consumer_service.dead_letters import dry_run
from consumer_service.dead_letters.dry_run import DryRun
from consumer_service.dead_letters.letters import MAX_REASON, DeadLetter, to_dead_letter
from consumer_service.domain import OrderEvent, PoisonMessage, Settlement, StockUpdateResult
from proto.dead_letters import REASON_HEADER, TIME_HEADER, dead_since, order_id_of, reason_of
from proto.events import DATA_SCHEMA, ORDER_CANCELLED, ORDER_CREATED
from proto.stock import ReservationState, Shortage, StockUpdateOutcome
from service_kit.errors import Unavailable


@dataclass
class Dependencies:
    """Inventory and orders that only validate, in one."""

    states: dict[uuid.UUID, ReservationState] = field(default_factory=dict)
    results: dict[uuid.UUID, StockUpdateResult] = field(default_factory=dict)
    statuses: dict[uuid.UUID, str] = field(default_factory=dict)

    async def get_reservations(
        self, order_ids: Sequence[uuid.UUID]
    ) -> dict[uuid.UUID, ReservationState]:
        return {key: self.states[key] for key in order_ids if key in self.states}

    async def update_stock(self, events: Sequence[OrderEvent]) -> list[StockUpdateResult]:
        applied = StockUpdateResult(StockUpdateOutcome.APPLIED)
        return [self.results.get(event.order_id, applied) for event in events]

    async def settle_orders(self, settlements: Sequence[Settlement]) -> list[str | None]:
        return [self.statuses.get(each.order_id) for each in settlements]

    async def effects(self, *letters: DeadLetter) -> list[str]:
        inventory, orders = cast("InventoryClient", self), cast("OrderClient", self)
        return await DryRun(inventory, orders).effects(letters)


@dataclass
class Message:
    """What a dry run reads of a message."""

    body: bytes


def letter(body: bytes) -> DeadLetter:
    return DeadLetter(cast("AbstractIncomingMessage", Message(body)))


def event(order_id: uuid.UUID, event_type: str = ORDER_CREATED) -> DeadLetter:
    items = [{"product_id": 1, "quantity": 2}, {"product_id": 2, "quantity": 1}]
    envelope = {
        "specversion": "1.0",
        "type": event_type,
        "dataschema": DATA_SCHEMA,
        "data": {"order_id": str(order_id), "items": items},
    }
    return letter(json.dumps(envelope).encode())


ORDER, OTHER = uuid.uuid4(), uuid.uuid4()


async def test_effects_are_in_the_order_of_the_letters_readable_or_not() -> None:
    dependencies = Dependencies(statuses={ORDER: "CONFIRMED", OTHER: "CONFIRMED"})
    first, second, third, fourth = await dependencies.effects(
        letter(b"no JSON"), event(ORDER), letter(b"{}"), event(OTHER)
    )
    assert first.startswith("dead again: unreadable: ")
    assert second == fourth == "deducts 2 of product 1, 1 of product 2; the order is then CONFIRMED"
    assert third.startswith("dead again: unreadable: ")


async def test_unreadable_letters_need_no_dependency() -> None:
    class Unused(Dependencies):
        async def get_reservations(
            self, order_ids: Sequence[uuid.UUID]
        ) -> dict[uuid.UUID, ReservationState]:
            raise AssertionError

    assert len(await Unused().effects(letter(b""))) == 1
    assert await Unused().effects() == []


@pytest.mark.parametrize(
    ("event_type", "before", "result", "effect"),
    [
        (
            ORDER_CREATED,
            None,
            StockUpdateResult(
                StockUpdateOutcome.INSUFFICIENT_STOCK, [Shortage(1, 2, 0), Shortage(2, 1, 0)]
            ),
            "no stock moves: product 1 has 0 of 2, product 2 has 0 of 1; the order is then X",
        ),
        (
            ORDER_CREATED,
            ReservationState.DEDUCTED,
            StockUpdateResult(StockUpdateOutcome.APPLIED),
            "no stock moves: DEDUCTED before; the order is then X",
        ),
        (
            ORDER_CREATED,
            ReservationState.CANCELLED,
            StockUpdateResult(StockUpdateOutcome.CANCELLED),
            "no stock moves: CANCELLED before",
        ),
        (
            # Cancelled by a letter before it in the same dry run.
            ORDER_CREATED,
            None,
            StockUpdateResult(StockUpdateOutcome.CANCELLED),
            "no stock moves: CANCELLED",
        ),
        (
            ORDER_CREATED,
            None,
            StockUpdateResult(StockUpdateOutcome.UNKNOWN_PRODUCT, unknown_product_ids=[2]),
            "dead again: unknown_product: [2]",
        ),
        (
            ORDER_CANCELLED,
            ReservationState.DEDUCTED,
            StockUpdateResult(StockUpdateOutcome.APPLIED),
            "restores the order's stock; the order is then X",
        ),
        (
            ORDER_CANCELLED,
            ReservationState.REJECTED,
            StockUpdateResult(StockUpdateOutcome.CANCELLED),
            "no stock moves; the order is then X",
        ),
        (
            ORDER_CANCELLED,
            None,
            StockUpdateResult(StockUpdateOutcome.CANCELLED),
            "no stock moves; the order is then X",
        ),
    ],
)
async def test_the_effect_depends_on_the_event_the_reservation_and_the_stock(
    event_type: str, before: ReservationState | None, result: StockUpdateResult, effect: str
) -> None:
    dependencies = Dependencies(
        states={ORDER: before} if before else {}, results={ORDER: result}, statuses={ORDER: "X"}
    )
    assert await dependencies.effects(event(ORDER, event_type)) == [effect]


async def test_an_event_of_an_unknown_order_is_dead_again() -> None:
    assert await Dependencies().effects(event(ORDER)) == [f"dead again: unknown_order: {ORDER}"]


async def test_dependencies_that_do_not_respond_are_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dry_run, "DRY_RUN_SECONDS", 0.1)

    class Down(Dependencies):
        async def update_stock(self, events: Sequence[OrderEvent]) -> list[StockUpdateResult]:
            raise Unavailable("DOWN", "down")

    with pytest.raises(Unavailable, match="do not respond"):
        await Down().effects(event(ORDER))


def delivered(body: bytes, **headers: Any) -> DeliveredMessage:
    properties = Basic.Properties(
        message_id="event-1",
        message_type=ORDER_CREATED,
        content_type="application/json",
        headers=headers,
    )
    deliver = Basic.Deliver("tag", 1, exchange="order.events", routing_key=ORDER_CREATED)
    header = ContentHeader(0, len(body), properties)
    return DeliveredMessage(deliver, header, body, cast("AbstractChannel", None))


def test_a_dead_letter_is_a_copy_with_reason_and_time() -> None:
    message = to_dead_letter(
        delivered(b"body", traceparent="00-1"), PoisonMessage("unreadable", "no JSON")
    )
    assert message.body == b"body"
    assert (message.message_id, message.type) == ("event-1", ORDER_CREATED)
    assert message.content_type == "application/json"
    assert message.headers["traceparent"] == "00-1"
    assert message.headers[REASON_HEADER] == "unreadable: no JSON"
    assert str(message.headers[TIME_HEADER]).endswith("+00:00")


def test_a_reason_that_is_too_long_is_cut() -> None:
    message = to_dead_letter(delivered(b""), PoisonMessage("unreadable", "x" * 5_000))
    assert len(str(message.headers[REASON_HEADER])) == MAX_REASON


def test_header_values_that_were_read_as_bytes_become_text_at_any_depth() -> None:
    message = to_dead_letter(
        delivered(b"", a=b"\xff", b=[b"\xfe", 1], c={"d": {"e": b"\xfd"}}, f=None, g=0.5),
        PoisonMessage("unreadable", ""),
    )
    headers = dict(message.headers)
    assert headers["a"] == "ÿ"
    assert headers["b"] == ["þ", 1]
    assert headers["c"] == {"d": {"e": "ý"}}
    assert (headers["f"], headers["g"]) == (None, 0.5)


@pytest.mark.parametrize(
    ("body", "order_id"),
    [
        (b'{"subject": "order-1", "data": {}}', "order-1"),
        (b'{"data": {}}', ""),
        (b"[]", ""),
        (b"no JSON", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_the_order_of_a_dead_letter_is_its_subject_if_it_can_be_read(
    body: bytes, order_id: str
) -> None:
    assert order_id_of(body) == order_id


def test_the_consumers_reason_and_time_count_more_than_the_brokers() -> None:
    noon = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
    by_broker = {"x-death": [{"reason": "delivery_limit", "time": noon}, {"reason": "older"}]}
    by_consumer = {REASON_HEADER: "unreadable: no JSON", TIME_HEADER: "2026-11-23T13:00:00+00:00"}
    assert (reason_of(by_broker), dead_since(by_broker)) == ("delivery_limit", noon)
    both = by_broker | by_consumer
    assert (reason_of(both), dead_since(both)) == (
        "unreadable: no JSON",
        noon + dt.timedelta(hours=1),
    )
    assert (reason_of({}), dead_since({})) == ("", None)
