"""Events and dead letters in the broker's queues, as the management page shows them."""

import json
from collections.abc import Callable
from typing import Any

from proto.events import AUDIT_QUEUE, DEAD_LETTER_QUEUE
from tests.support.system import System
from tests.support.waiting import eventually

Message = dict[str, Any]
"""A message as the management page shows it."""


async def _messages(
    system: System, queue: str, matches: Callable[[Message], bool]
) -> list[Message]:
    return [each for each in await system.broker.peek(queue, count=10_000) if matches(each)]


async def audited_events(system: System, order_id: str, *types: str) -> list[Message]:
    """The events of an order in the audit queue, once all these types are in it."""

    def of_the_order(message: Message) -> bool:
        # The messages of other tests may have any body, JSON or not.
        return order_id in message["payload"] and cloud_event(message)["subject"] == order_id

    async def events() -> list[Message]:
        return await _messages(system, AUDIT_QUEUE, of_the_order)

    return await eventually(
        events, lambda found: {message["routing_key"] for message in found} >= set(types)
    )


def cloud_event(message: Message) -> dict[str, Any]:
    """The CloudEvent in a message."""
    return dict(json.loads(message["payload"]))


async def dead_letter(system: System, message_id: str) -> Message:
    """The dead letter with this message id, once it is in the dead-letter queue."""

    def has_id(message: Message) -> bool:
        return bool(message["properties"].get("message_id") == message_id)

    async def letters() -> list[Message]:
        return await _messages(system, DEAD_LETTER_QUEUE, has_id)

    return (await eventually(letters))[0]
