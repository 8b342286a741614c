"""Exchanges and queues of the order events, as they are declared in RabbitMQ."""

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
"""Against a message that crashes its consumer; an unavailable dependency costs no delivery."""

AUDIT_LENGTH = 10_000
"""Events that the audit queue keeps, the newest ones."""

TOPOLOGY = Topology(
    exchanges=[
        Exchange(EXCHANGE, ExchangeType.TOPIC),
        Exchange(DEAD_LETTER_EXCHANGE, ExchangeType.TOPIC),
    ],
    queues=[
        Queue(
            DEAD_LETTER_QUEUE,
            [(DEAD_LETTER_EXCHANGE, "#")],
            # RabbitMQ 4 drops a message after 20 deliveries by default, and each time that dead
            # letters are listed is one.
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
                # At-least-once dead-lettering needs it (rabbitmq.com/docs/quorum-queues).
                "x-overflow": "reject-publish",
            },
        ),
        # Bound to each type: with "#" no event would be unroutable any more.
        Queue(
            AUDIT_QUEUE,
            [(EXCHANGE, event_type) for event_type in EVENT_TYPES],
            {
                "x-max-length": AUDIT_LENGTH,
                "x-overflow": "drop-head",
                # Nobody consumes it: on disk it costs the broker a third less. RabbitMQ from 3.12
                # on keeps every classic queue there.
                "x-queue-version": 2,
                "x-queue-mode": "lazy",
            },
            optional=True,
        ),
    ],
)
