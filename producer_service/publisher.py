"""Confirmed publishing (https://www.rabbitmq.com/docs/confirms#publisher-confirms)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import aio_pika
import structlog
from aio_pika.abc import AbstractConnection, AbstractExchange
from aio_pika.exceptions import DeliveryError, PublishError

from producer_service.topology import TOPOLOGY
from proto.events import CONTENT_TYPE, EXCHANGE
from service_kit.context import REQUEST_ID, TRACEPARENT
from service_kit.errors import FailedPrecondition, ServiceError, Unavailable
from service_kit.messaging import BROKER_FAILURES, declare, watch

log = structlog.get_logger(__name__)

CONFIRM_SECONDS = 5.0
REDECLARE_SECONDS = 5.0
"""How soon a binding or queue deleted by hand is back."""


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An event as it is to be published; `body` is the CloudEvents envelope."""

    id: str
    type: str
    body: bytes
    traceparent: str
    request_id: str


class Publisher:
    """Publishes on the connection of the running session; Unavailable while there is none."""

    def __init__(self) -> None:
        self._exchange: AbstractExchange | None = None

    async def session(self, connection: AbstractConnection) -> None:
        """Declare the topology and offer the connection for publishing until it fails."""
        topology = await connection.channel()
        await declare(topology, TOPOLOGY)
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        self._exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        log.info("publishing")
        try:
            while True:
                await watch(connection, channel, seconds=REDECLARE_SECONDS)
                await declare(topology, TOPOLOGY)
        finally:
            self._exchange = None

    async def publish(self, event: OutgoingEvent) -> None:
        """Return once every queue the event was routed to has it safe.

        Raises FailedPrecondition (UNROUTABLE) if no queue takes it, Unavailable if the broker is
        away (BROKER_UNAVAILABLE), refuses it (NACKED) or is silent (UNCONFIRMED: it may have it).
        """
        exchange = self._exchange
        if exchange is None:
            raise Unavailable("BROKER_UNAVAILABLE", "the broker is away")
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await exchange.publish(_message(event), event.type, mandatory=True)
        except PublishError as error:
            raise FailedPrecondition("UNROUTABLE", f"no queue takes {event.type}") from error
        except DeliveryError as error:
            raise Unavailable("NACKED", "the broker refused the event") from error
        except BROKER_FAILURES as error:
            raise Unavailable("UNCONFIRMED", "no confirm came: the outcome is unknown") from error

    async def publish_all(self, events: Sequence[OutgoingEvent]) -> list[ServiceError | None]:
        """Publish many at once; None for each that was confirmed, in the order of the events.

        Raises Unavailable if the broker is away before the first is written.
        """
        if self._exchange is None:
            raise Unavailable("BROKER_UNAVAILABLE", "the broker is away")
        return await asyncio.gather(*(self._outcome(event) for event in events))

    async def _outcome(self, event: OutgoingEvent) -> ServiceError | None:
        try:
            await self.publish(event)
        except ServiceError as error:
            return error
        return None


def _message(event: OutgoingEvent) -> aio_pika.Message:
    headers = {TRACEPARENT: event.traceparent, REQUEST_ID: event.request_id}
    return aio_pika.Message(
        event.body,
        message_id=event.id,
        type=event.type,
        content_type=CONTENT_TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers={key: value for key, value in headers.items() if value},
    )
