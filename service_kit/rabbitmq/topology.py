"""Exchanges and queues as declared values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: aio_pika.ExchangeType


@dataclass(frozen=True)
class Queue:
    """A durable queue, its arguments, and the (exchange, routing key) pairs bound to it.

    The system also works while the node that holds an `optional` queue is down.
    """

    name: str
    bindings: Sequence[tuple[str, str]]
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Topology:
    """Exchanges and queues that belong together."""

    exchanges: Sequence[Exchange]
    queues: Sequence[Queue]


async def declare_topology(channel: AbstractChannel, topology: Topology) -> None:
    """Declare everything; what already exists with the same arguments stays as it is."""
    for exchange in topology.exchanges:
        await channel.declare_exchange(exchange.name, exchange.type, durable=True)
    for queue in topology.queues:
        try:
            await _declare_queue(channel, queue)
        except ChannelNotFoundEntity:
            # The node that holds it is down.
            if not queue.optional:
                raise
            log.warning("optional queue unavailable", queue=queue.name)
            await channel.reopen()
        except ChannelPreconditionFailed:
            # Not an outage, although it ends the session too: an operator must delete the queue.
            log.exception("queue exists with other arguments", queue=queue.name)
            raise


async def _declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    declared = await channel.declare_queue(
        queue.name, durable=True, arguments=dict(queue.arguments)
    )
    for exchange_name, routing_key in queue.bindings:
        await declared.bind(exchange_name, routing_key)
