"""Exchanges and queues of the order events, as RabbitMQ shall have them."""

from aio_pika import ExchangeType

from proto.events import (
    AUDIT_QUEUE,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    EVENT_TYPES,
    EXCHANGE,
    INVENTORY_EVENT_TYPES,
    INVENTORY_QUEUE,
)
from service_kit.rabbitmq.topology import Exchange, Queue, Topology

DELIVERY_LIMIT = 100
"""A backstop against a message that kills its consumer; waiting for a neighbour costs none."""

AUDIT_LENGTH = 10_000

TOPOLOGY = Topology(
    exchanges=[
        Exchange(EXCHANGE, ExchangeType.TOPIC),
        Exchange(DEAD_LETTER_EXCHANGE, ExchangeType.TOPIC),
    ],
    queues=[
        Queue(
            DEAD_LETTER_QUEUE,
            [(DEAD_LETTER_EXCHANGE, "#")],
            # RabbitMQ 4 drops a message after 20 deliveries unless told otherwise, and each look
            # at the dead letters is one.
            {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000},
        ),
        Queue(
            INVENTORY_QUEUE,
            [(EXCHANGE, event_type) for event_type in INVENTORY_EVENT_TYPES],
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
                "x-dead-letter-strategy": "at-least-once",
                # At-least-once dead-lettering demands it (rabbitmq.com/docs/quorum-queues).
                "x-overflow": "reject-publish",
            },
        ),
        # Bound type by type: "#" would route every event, and a type that nobody handles would
        # no longer come back as unroutable.
        Queue(
            AUDIT_QUEUE,
            [(EXCHANGE, event_type) for event_type in EVENT_TYPES],
            {
                "x-max-length": AUDIT_LENGTH,
                "x-overflow": "drop-head",
                # Nobody consumes it: kept on disk, it costs the broker a third less. RabbitMQ
                # from 3.12 on does this for every classic queue.
                "x-queue-version": 2,
                "x-queue-mode": "lazy",
            },
            optional=True,
        ),
    ],
)
