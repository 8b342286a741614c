"""What producer_service does: publish events, each with its own result."""

from collections.abc import Sequence

from producer_service.publisher import OutgoingEvent, Publisher
from service_kit.errors import InvalidArgument, ServiceError

MAX_EVENTS = 1_000
"""Events of one call."""
MAX_BODY_BYTES = 1024 * 1024
MAX_NAME_BYTES = 255
"""AMQP's limit for a routing key and a message_id."""
MAX_CONTEXT_BYTES = 16 * 1024
"""Headers must fit into one AMQP frame, or the broker closes the connection."""


async def publish_events(
    publisher: Publisher, events: Sequence[OutgoingEvent]
) -> list[ServiceError | None]:
    """Publish the valid events; for each event None if the broker confirmed it, or the error.

    Raises Unavailable if the broker is unavailable.
    """
    if len(events) > MAX_EVENTS:
        raise InvalidArgument(
            "TOO_MANY_ITEMS", f"At most {MAX_EVENTS:,} events are allowed in one call."
        )
    ids: set[str] = set()
    faults = [_validate(event, ids) for event in events]
    valid = [event for event, fault in zip(events, faults, strict=True) if fault is None]
    published = iter(await publisher.publish(valid))
    return [fault or next(published) for fault in faults]


def _validate(event: OutgoingEvent, ids: set[str]) -> ServiceError | None:
    """What is wrong with the event; if nothing is, its id joins those of this call in `ids`."""
    names = (event.id, event.type)
    if not all(1 <= len(name.encode()) <= MAX_NAME_BYTES for name in names):
        return InvalidArgument(
            "INVALID_EVENT", f"an event needs an id and a type of at most {MAX_NAME_BYTES} bytes"
        )
    if not 1 <= len(event.body) <= MAX_BODY_BYTES:
        return InvalidArgument("INVALID_EVENT", f"a body has 1 to {MAX_BODY_BYTES} bytes")
    if len((event.request_id + event.traceparent).encode()) > MAX_CONTEXT_BYTES:
        return InvalidArgument("INVALID_EVENT", f"a context has at most {MAX_CONTEXT_BYTES} bytes")
    if event.id in ids:
        # The broker returns a message by its id alone: of two, the wrong one might be confirmed.
        return InvalidArgument("INVALID_EVENT", "another event in this call has the same id")
    ids.add(event.id)
    return None
