"""Confirmed publishing (https://www.rabbitmq.com/docs/confirms#publisher-confirms)."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel as AbstractUnderlayChannel

from producer_service.topology import TOPOLOGY
from proto.events import CONTENT_TYPE, EXCHANGE
from service_kit.context import REQUEST_ID, TRACEPARENT
from service_kit.errors import FailedPrecondition, ServiceError, Unavailable
from service_kit.rabbitmq.batch_publish import (
    Message,
    PublishOutcome,
    owes_confirms,
    publish_batch,
)
from service_kit.rabbitmq.connection import BROKER_FAILURES, fail_when_closed, open_channel
from service_kit.rabbitmq.topology import declare_topology

log = structlog.get_logger(__name__)

CONFIRM_SECONDS = 5.0
REDECLARE_SECONDS = 5.0
"""How often the topology is declared: a queue or binding deleted by hand soon exists again."""


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An event to publish; `body` is its CloudEvents envelope."""

    id: str
    type: str
    body: bytes
    traceparent: str
    request_id: str


class Publisher:
    """Publishes on the connection of the running session; Unavailable while there is none.

    It is also Unavailable while the broker owes confirms for an earlier batch. So at most one batch
    stays in memory, however long the broker hangs or is blocked by an alarm.
    """

    def __init__(self) -> None:
        self._channel: AbstractUnderlayChannel | None = None
        self._in_flight: set[str] = set()
        self._nacked = False

    async def session(self, connection: AbstractConnection) -> None:
        """Declare the topology, and publish on this connection until it fails.

        Raises ConnectionError when a new connection may help.
        """
        topology = await open_channel(connection)
        await declare_topology(topology, TOPOLOGY)
        channel = await open_channel(connection, publisher_confirms=True)
        self._channel, self._nacked = await channel.get_underlay_channel(), False
        log.info("publishing")
        owed_confirms = False
        try:
            while True:
                await fail_when_closed(connection, channel, seconds=REDECLARE_SECONDS)
                if self._nacked:
                    # After a quorum queue lost its leader, a channel may nack everything.
                    raise ConnectionError("the broker nacks events")
                if owed_confirms and owes_confirms(self._channel):
                    # The broker has read them, for it has responded to a declaration after them:
                    # these confirms will never arrive.
                    raise ConnectionError("the broker does not confirm events")
                await declare_topology(topology, TOPOLOGY)
                owed_confirms = owes_confirms(self._channel)
        finally:
            self._channel = None

    async def publish(self, events: Sequence[OutgoingEvent]) -> list[ServiceError | None]:
        """Publish; for each event None once every queue that it was routed to has stored it.

        Otherwise FailedPrecondition (UNROUTABLE) if no queue takes it, or Unavailable: NACKED by
        the broker, UNCONFIRMED if its outcome is unknown, IN_FLIGHT if another call is publishing
        it. Raises Unavailable (BROKER_UNAVAILABLE) without a connection, and while the broker owes
        confirms.
        """
        if self._channel is None:
            raise Unavailable("BROKER_UNAVAILABLE", "the broker is unavailable")
        if owes_confirms(self._channel):
            raise Unavailable("BROKER_UNAVAILABLE", "the broker owes confirms for earlier events")
        # The broker returns a message by its id, so an id may be in flight only once.
        outgoing = [event for event in events if event.id not in self._in_flight]
        ids = {event.id for event in outgoing}
        self._in_flight |= ids
        try:
            outcomes = await publish_batch(
                self._channel, EXCHANGE, [_message(event) for event in outgoing], CONFIRM_SECONDS
            )
        except BROKER_FAILURES as error:
            raise Unavailable("BROKER_UNAVAILABLE", "the broker is unavailable") from error
        finally:
            self._in_flight -= ids
        self._nacked |= PublishOutcome.NACKED in outcomes
        errors = map(_error, outcomes)
        return [
            next(errors)
            if event.id in ids
            else Unavailable("IN_FLIGHT", "another call is publishing the event")
            for event in events
        ]


def _error(outcome: PublishOutcome) -> ServiceError | None:
    match outcome:
        case PublishOutcome.CONFIRMED:
            return None
        case PublishOutcome.UNROUTABLE:
            return FailedPrecondition("UNROUTABLE", "no queue takes the event")
        case PublishOutcome.NACKED:
            return Unavailable("NACKED", "the broker refused the event")
        case PublishOutcome.UNCONFIRMED:
            return Unavailable("UNCONFIRMED", "no confirm arrived: the outcome is unknown")


def _message(event: OutgoingEvent) -> Message:
    headers = {TRACEPARENT: event.traceparent, REQUEST_ID: event.request_id}
    return Message(
        event.id,
        event.type,
        event.body,
        CONTENT_TYPE,
        {key: value for key, value in headers.items() if value},
    )
