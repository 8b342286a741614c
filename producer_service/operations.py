"""What producer_service does: publish events, each answered on its own."""

from collections.abc import Sequence

from producer_service.publisher import OutgoingEvent, Publisher
from service_kit.errors import InvalidArgument, ServiceError

MAX_EVENTS = 1_000
MAX_BODY_BYTES = 1024 * 1024
MAX_TYPE_BYTES = 255
"""What AMQP allows a routing key."""


async def publish_events(
    publisher: Publisher, events: Sequence[OutgoingEvent]
) -> list[ServiceError | None]:
    """Publish the events that are whole; None for each that the broker confirmed.

    Raises Unavailable if the broker is away.
    """
    if len(events) > MAX_EVENTS:
        raise InvalidArgument("TOO_MANY_ITEMS", f"at most {MAX_EVENTS} events in one call")
    faults = [_fault(event) for event in events]
    whole = [event for event, fault in zip(events, faults, strict=True) if fault is None]
    outcomes = iter(await publisher.publish(whole))
    return [fault or next(outcomes) for fault in faults]


def _fault(event: OutgoingEvent) -> ServiceError | None:
    if not event.id or not event.type or len(event.type.encode()) > MAX_TYPE_BYTES:
        return InvalidArgument("INVALID_EVENT", "an event needs an id and a type")
    if not 1 <= len(event.body) <= MAX_BODY_BYTES:
        return InvalidArgument("INVALID_EVENT", f"a body has 1 to {MAX_BODY_BYTES} bytes")
    return None
