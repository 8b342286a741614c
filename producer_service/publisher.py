"""Confirmed publishing (https://www.rabbitmq.com/docs/confirms#publisher-confirms)."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel as AbstractUnderlayChannel
from aiormq.exceptions import DeliveryError, PublishError

from producer_service.topology import TOPOLOGY
from proto.events import CONTENT_TYPE, EXCHANGE
from service_kit.context import REQUEST_ID, TRACEPARENT
from service_kit.errors import FailedPrecondition, ServiceError, Unavailable
from service_kit.rabbitmq.batch_publish import Message, owes_confirms, publish_batch
from service_kit.rabbitmq.connection import BROKER_FAILURES, fail_when_closed
from service_kit.rabbitmq.topology import declare_topology

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
    """Publishes on the connection of the running session; Unavailable while there is none.

    Unavailable too while the broker has not answered for what it was sent before, so that what
    waits for it in memory is one batch, however long it is blocked by an alarm or hangs.
    """

    def __init__(self) -> None:
        self._channel: AbstractUnderlayChannel | None = None
        self._in_flight: set[str] = set()
        self._nacked = False

    async def session(self, connection: AbstractConnection) -> None:
        """Declare the topology and offer the connection for publishing until it fails."""
        topology = await connection.channel()
        await declare_topology(topology, TOPOLOGY)
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        self._channel, self._nacked = await channel.get_underlay_channel(), False
        log.info("publishing")
        owing = False
        try:
            while True:
                await fail_when_closed(connection, channel, seconds=REDECLARE_SECONDS)
                if self._nacked:
                    # A channel on which a quorum queue's leader was lost may refuse for ever.
                    raise ConnectionError("the broker refuses events: a new channel may not")
                if owing and owes_confirms(self._channel):
                    # It read the events before the declarations: those confirms will never come.
                    raise ConnectionError("the broker does not confirm: a new channel may help")
                await declare_topology(topology, TOPOLOGY)
                owing = owes_confirms(self._channel)
        finally:
            self._channel = None

    async def publish(self, events: Sequence[OutgoingEvent]) -> list[ServiceError | None]:
        """Publish; for each event None once every queue it was routed to has it safe.

        Otherwise FailedPrecondition (UNROUTABLE) if no queue takes it, or Unavailable: NACKED by
        the broker, UNCONFIRMED, which means that it may have it, or IN_FLIGHT if another call is
        publishing it. Raises Unavailable (BROKER_UNAVAILABLE) if the broker is away or still owes
        confirms.
        """
        if self._channel is None:
            raise Unavailable("BROKER_UNAVAILABLE", "the broker is away")
        if owes_confirms(self._channel):
            raise Unavailable("BROKER_UNAVAILABLE", "the broker does not confirm what it was sent")
        # A returned message is told by its id alone, so an id may be on its way only once.
        outgoing = [event for event in events if event.id not in self._in_flight]
        ids = {event.id for event in outgoing}
        self._in_flight |= ids
        try:
            outcomes = iter(
                await publish_batch(
                    self._channel,
                    EXCHANGE,
                    [_message(event) for event in outgoing],
                    CONFIRM_SECONDS,
                )
            )
        except BROKER_FAILURES as error:
            raise Unavailable("BROKER_UNAVAILABLE", "the broker is away") from error
        finally:
            self._in_flight -= ids
        answers = [
            _refusal(next(outcomes))
            if event.id in ids
            else Unavailable("IN_FLIGHT", "another call is publishing the event")
            for event in events
        ]
        self._nacked |= any(answer and answer.reason == "NACKED" for answer in answers)
        return answers


def _refusal(outcome: Exception | None) -> ServiceError | None:
    if outcome is None:
        return None
    if isinstance(outcome, PublishError):
        return FailedPrecondition("UNROUTABLE", "no queue takes the event")
    if isinstance(outcome, DeliveryError):
        return Unavailable("NACKED", "the broker refused the event")
    return Unavailable("UNCONFIRMED", "no confirm came: the outcome is unknown")


def _message(event: OutgoingEvent) -> Message:
    headers = {TRACEPARENT: event.traceparent, REQUEST_ID: event.request_id}
    return Message(
        event.id,
        event.type,
        event.body,
        CONTENT_TYPE,
        {key: value for key, value in headers.items() if value},
    )
