"""The steps of an order's way at which a service may die, and the bugs planted to prove the proof.

A target is named `module:attribute`, as the product has it; nothing in the product knows of it.
"""

from dataclasses import dataclass
from enum import StrEnum

from tests.faults.promises import LOST, MOVED_TWICE, UNBALANCED, UNDELIVERED, UNSEEN


class When(StrEnum):
    """Whether the process dies before the call has begun or after it has returned."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class Point:
    """A step: the service that dies, and the call before or after which it does."""

    service: str
    when: When
    target: str


_GATEWAY = "api_gateway.clients.orders:OrderClient"
_STORAGE = "order_service.storage"
_PUBLISH = "order_service.clients:ProducerClient.publish"

POINTS = {
    "the gateway asks for an order": Point(
        "api_gateway", When.BEFORE, f"{_GATEWAY}._batch_create_orders"
    ),
    "the gateway has an order and tells nobody": Point(
        "api_gateway", When.AFTER, f"{_GATEWAY}._batch_create_orders"
    ),
    "users are looked up": Point(
        "user_service", When.BEFORE, "user_service.operations:batch_get_users"
    ),
    "prices and stock are looked up": Point(
        "inventory_service", When.BEFORE, "inventory_service.operations:check_stock"
    ),
    "an order is about to be stored": Point(
        "order_service", When.BEFORE, f"{_STORAGE}:insert_orders"
    ),
    "an order is stored and not yet relayed": Point(
        "order_service", When.AFTER, f"{_STORAGE}:insert_orders"
    ),
    "the relay is about to ask the producer": Point("order_service", When.BEFORE, _PUBLISH),
    "the producer answered and no row is marked": Point("order_service", When.AFTER, _PUBLISH),
    "the rows are marked": Point("order_service", When.AFTER, "order_service.outbox:mark_sent"),
    "the producer is about to publish": Point(
        "producer_service", When.BEFORE, "producer_service.publisher:publish_batch"
    ),
    "the producer has written and has no confirm": Point(
        "producer_service", When.BEFORE, "service_kit.rabbitmq.batch_publish:_Batch.settled_one"
    ),
    "the producer is confirmed and does not answer": Point(
        "producer_service", When.AFTER, "producer_service.publisher:publish_batch"
    ),
    "the consumer is about to update stock": Point(
        "consumer_service", When.BEFORE, "consumer_service.clients:InventoryClient.update_stock"
    ),
    "stock is about to be committed": Point(
        "inventory_service", When.AFTER, "inventory_service.ledger:record"
    ),
    "stock is committed and nobody told": Point(
        "inventory_service", When.AFTER, "inventory_service.operations:update_stock"
    ),
    "stock is updated and the order not settled": Point(
        "consumer_service", When.AFTER, "consumer_service.clients:InventoryClient.update_stock"
    ),
    "a settlement is about to be stored": Point("order_service", When.BEFORE, f"{_STORAGE}:settle"),
    "a settlement is stored and nobody told": Point(
        "order_service", When.AFTER, f"{_STORAGE}:settle"
    ),
    "orders are settled and the messages not acked": Point(
        "consumer_service", When.AFTER, "consumer_service.clients:OrderClient.settle"
    ),
    "the messages are acked": Point("consumer_service", When.AFTER, "aiormq:Channel.basic_ack"),
    "a cancellation is about to be stored": Point(
        "order_service", When.BEFORE, f"{_STORAGE}:cancel"
    ),
    "a cancellation is stored and nobody told": Point(
        "order_service", When.AFTER, f"{_STORAGE}:cancel"
    ),
    "a restored order is about to be released": Point(
        "order_service", When.BEFORE, f"{_STORAGE}:release"
    ),
    "a restored order is released and nobody told": Point(
        "order_service", When.AFTER, f"{_STORAGE}:release"
    ),
}


@dataclass(frozen=True)
class Bug:
    """A mistake planted into a service, and the sentence with which it must be found.

    `point` is the step at which it, or another service, dies; "" if it shows without a crash.
    Slowness cannot cause these sentences: they are about what was handled, or is stored.
    """

    service: str
    point: str
    breaks: str


BUGS = {
    "messages are acked before the work": Bug(
        "consumer_service", "the consumer is about to update stock", UNDELIVERED
    ),
    "the ledger gets no rows": Bug("inventory_service", "", UNBALANCED),
    "rows are marked before the confirm": Bug(
        "order_service", "the relay is about to ask the producer", UNSEEN
    ),
    "stock moves once more for each delivery": Bug(
        "inventory_service", "stock is updated and the order not settled", MOVED_TWICE
    ),
    "an order is accepted before it is stored": Bug("order_service", "", LOST),
}
