"""What producer_service does: publish events, each answered on its own."""

from collections.abc import Sequence

from producer_service.publisher import OutgoingEvent, Publisher
from service_kit.errors import InvalidArgument, ServiceError

MAX_EVENTS = 1_000
MAX_BODY_BYTES = 1024 * 1024
MAX_NAME_BYTES = 255
"""What AMQP allows a routing key and a message_id."""
MAX_CONTEXT_BYTES = 16 * 1024
"""Headers have to fit into one AMQP frame, or the broker closes the connection."""


async def publish_events(
    publisher: Publisher, events: Sequence[OutgoingEvent]
) -> list[ServiceError | None]:
    """Publish the events that are whole; None for each that the broker confirmed.

    Raises Unavailable if the broker is away.
    """
    if len(events) > MAX_EVENTS:
        raise InvalidArgument("TOO_MANY_ITEMS", f"at most {MAX_EVENTS} events in one call")
    seen: set[str] = set()
    faults = [_fault(event, seen) for event in events]
    whole = [event for event, fault in zip(events, faults, strict=True) if fault is None]
    outcomes = iter(await publisher.publish(whole))
    return [fault or next(outcomes) for fault in faults]


def _fault(event: OutgoingEvent, seen: set[str]) -> ServiceError | None:
    names = (event.id, event.type)
    if not all(1 <= len(name.encode()) <= MAX_NAME_BYTES for name in names):
        return InvalidArgument(
            "INVALID_EVENT", f"an event needs an id and a type of at most {MAX_NAME_BYTES} bytes"
        )
    if not 1 <= len(event.body) <= MAX_BODY_BYTES:
        return InvalidArgument("INVALID_EVENT", f"a body has 1 to {MAX_BODY_BYTES} bytes")
    if len((event.request_id + event.traceparent).encode()) > MAX_CONTEXT_BYTES:
        return InvalidArgument("INVALID_EVENT", f"a context has at most {MAX_CONTEXT_BYTES} bytes")
    if event.id in seen:
        # The broker names a message that it returns by its id alone.
        return InvalidArgument("INVALID_EVENT", "the id is that of another event in this call")
    seen.add(event.id)
    return None
