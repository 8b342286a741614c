"""The messages that could not be handled: what they are, what they would do, and back with them."""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aio_pika
import grpc
import orjson
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aiormq.exceptions import DeliveryError, PublishError

from consumer_service.clients import InventoryClient, OrderClient, Settlement
from consumer_service.cloud_events import read_event
from consumer_service.models import (
    Kind,
    OrderEvent,
    PoisonError,
    StockAnswer,
    StockOutcome,
)
from consumer_service.operations import handle
from proto.dead_letters import REASON_HEADER, TIME_HEADER
from proto.events import DEAD_LETTER_QUEUE
from service_kit.context import CallContext
from service_kit.errors import Unavailable
from service_kit.rabbitmq.consume import browse_queue

PUBLISH_SECONDS = 5.0
REHEARSAL_SECONDS = 30.0

_NOT_THE_EVENTS_OWN = (
    REASON_HEADER,
    TIME_HEADER,
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
)
"""Headers that we and RabbitMQ add on the way to the dead-letter queue; they begin like this."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead-letter queue, in hand until its channel is closed."""

    message: AbstractIncomingMessage

    @property
    def event_id(self) -> str:
        """The event's id, under which it is handled again."""
        return self.message.message_id or ""

    @property
    def type(self) -> str:
        """The event's type, as the routing key tells."""
        return self.message.routing_key or ""

    @property
    def order_id(self) -> str:
        """The order that the event is about, as far as its envelope can be read."""
        try:
            envelope = orjson.loads(self.message.body)
        except orjson.JSONDecodeError:
            return ""
        return str(envelope.get("subject", "")) if isinstance(envelope, dict) else ""

    @property
    def reason(self) -> str:
        """Why it cannot be handled: in the consumer's words, else in the broker's."""
        headers = self.message.headers
        return str(headers.get(REASON_HEADER) or self._death().get("reason") or "")

    @property
    def since(self) -> dt.datetime | None:
        """When it came into the queue."""
        told = self.message.headers.get(TIME_HEADER)
        return dt.datetime.fromisoformat(str(told)) if told else self._death().get("time")

    def _death(self) -> Mapping[str, Any]:
        deaths: Any = self.message.headers.get("x-death")
        return deaths[0] if deaths else {}


async def dead_letters(channel: AbstractChannel, limit: int) -> AsyncIterator[DeadLetter]:
    """The dead letters, oldest first; those not redriven are back when the channel is closed."""
    async for message in browse_queue(channel, DEAD_LETTER_QUEUE, limit):
        yield DeadLetter(message)


async def redrive(exchange: AbstractExchange, letter: DeadLetter) -> str | None:
    """Publish it again as it was, under its own id; returns why not if the broker refuses it.

    It leaves the dead-letter queue after the broker's confirm: a crash in between leaves it there
    although it is under way, which does no harm, because no event is applied twice.
    """
    message = letter.message
    copy = aio_pika.Message(
        message.body,
        message_id=message.message_id,
        type=message.type,
        content_type=message.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers={
            name: value
            for name, value in message.headers.items()
            if not name.startswith(_NOT_THE_EVENTS_OWN)
        },
    )
    try:
        async with asyncio.timeout(PUBLISH_SECONDS):
            await exchange.publish(copy, letter.type, mandatory=True)
    except PublishError:
        return f"no queue takes {letter.type!r}"
    except DeliveryError:
        return "the broker refused it"
    await message.ack()
    return None


class Rehearsal:
    """Handles events with the consumer's own code, in transactions that are rolled back."""

    def __init__(self, inventory: grpc.aio.Channel, orders: grpc.aio.Channel) -> None:
        self._inventory = _Inventory(inventory)
        self._orders = _Orders(orders)

    async def results(self, letters: Sequence[DeadLetter]) -> list[str]:
        """What redriving each would do, if they came in this order (250 at most).

        Raises Unavailable if a neighbour does not answer.
        """
        read = [_read(letter) for letter in letters]
        events = [each for each in read if isinstance(each, OrderEvent)]
        try:
            async with asyncio.timeout(REHEARSAL_SECONDS):
                before = await self._inventory.decided([event.order_id for event in events])
                poison = await handle(self._inventory, self._orders, events) if events else {}
        except TimeoutError as error:
            raise Unavailable("UNAVAILABLE", "inventory or orders do not answer") from error
        told = iter(
            _dead_again(poison[position])
            if position in poison
            else self._told(event, before.get(event.order_id))
            for position, event in enumerate(events)
        )
        return [_dead_again(each) if isinstance(each, PoisonError) else next(told) for each in read]

    def _told(self, event: OrderEvent, before: str | None) -> str:
        key = (event.order_id, event.kind)
        stock = _stock(event, self._inventory.answered[key], before)
        status = self._orders.answered.get(key)
        return f"{stock}; the order is then {status}" if status else stock


class _Inventory(InventoryClient):
    """Notes the answers."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(channel, validate_only=True)
        self.answered: dict[tuple[uuid.UUID, Kind], StockAnswer] = {}

    async def update_stock(self, events: Sequence[OrderEvent]) -> list[StockAnswer]:
        answers = await super().update_stock(events)
        for event, answer in zip(events, answers, strict=True):
            self.answered[event.order_id, event.kind] = answer
        return answers


class _Orders(OrderClient):
    """Notes the statuses."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(channel, validate_only=True)
        self.answered: dict[tuple[uuid.UUID, Kind], str] = {}

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        statuses = await self.statuses(settlements)
        for (event, *_), status in zip(settlements, statuses, strict=True):
            self.answered[event.order_id, event.kind] = status
        return [status != "" for status in statuses]


def _read(letter: DeadLetter) -> OrderEvent | PoisonError:
    try:
        return read_event(letter.message.body, CallContext())
    except PoisonError as error:
        return error


def _dead_again(error: PoisonError) -> str:
    return f"dead again: {error}"


def _stock(event: OrderEvent, answer: StockAnswer, before: str | None) -> str:
    if event.kind is Kind.RESTORE:
        return "gives the order's stock back" if before == "DEDUCTED" else "moves no stock"
    if before is not None:
        return f"moves no stock, {before} before"
    if answer.outcome is StockOutcome.APPLIED:
        return f"takes {_units(event.items)}"
    if answer.outcome is StockOutcome.INSUFFICIENT_STOCK:
        short = ", ".join(
            f"product {each.product_id} has {each.available} of {each.requested}"
            for each in answer.shortages
        )
        return f"moves no stock, {short}"
    return f"moves no stock, {answer.outcome}"


def _units(items: Mapping[int, int]) -> str:
    return ", ".join(f"{quantity} of product {product}" for product, quantity in items.items())
