"""Gives dead letters back to the consumer."""

import asyncio

from aio_pika.abc import AbstractExchange
from aiormq.exceptions import DeliveryError, PublishError

from consumer_service.dead_letters.letters import DeadLetter

PUBLISH_SECONDS = 5.0


async def redrive(exchange: AbstractExchange, letter: DeadLetter) -> str | None:
    """Publish the event again as it was, under its own id; the reason if the broker refuses it.

    The letter leaves its queue after the broker's confirm. A crash in between leaves it there
    although its event is published: that does no harm, because no event is applied twice.
    """
    try:
        async with asyncio.timeout(PUBLISH_SECONDS):
            await exchange.publish(letter.original(), letter.type, mandatory=True)
    except PublishError:
        return f"no queue takes {letter.type!r}"
    except DeliveryError:
        return "the broker refused it"
    await letter.message.ack()
    return None
