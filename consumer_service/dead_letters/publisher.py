"""Publishes dead letters."""

import asyncio

import structlog
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage

from consumer_service.dead_letters.letters import to_dead_letter
from consumer_service.domain import PoisonMessage
from proto.events import DEAD_LETTER_EXCHANGE
from service_kit.pacing import retry_forever
from service_kit.rabbitmq.connection import BROKER_FAILURES

log = structlog.get_logger(__name__)

PUBLISH_SECONDS = 5.0


async def publish_dead_letter(
    channel: AbstractChannel, message: DeliveredMessage, error: PoisonMessage
) -> None:
    """Copy the message to the dead-letter queue; returns once the broker has confirmed it.

    The channel must have publisher confirms.
    """
    message_id = message.header.properties.message_id
    log.error("dead letter", message_id=message_id, reason=str(error))
    letter = to_dead_letter(message, error)
    exchange = await channel.get_exchange(DEAD_LETTER_EXCHANGE, ensure=False)
    async for attempt in retry_forever("publish a dead letter", BROKER_FAILURES):
        with attempt:
            async with asyncio.timeout(PUBLISH_SECONDS):
                if attempt.num > 1:
                    # On a channel that met a full queue the broker goes on refusing, even after
                    # the queue's limit is raised.
                    await channel.close()
                    await channel.reopen()
                await exchange.publish(letter, message.routing_key or "", mandatory=True)
