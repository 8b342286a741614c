"""The steps of the order lifecycle at which a service may crash."""

from dataclasses import dataclass
from enum import StrEnum


class When(StrEnum):
    """Whether the process crashes before the call starts or after it has returned."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class CrashPoint:
    """The service that crashes, and the call (see `targets`) before or after which it does."""

    service: str
    when: When
    target: str


_CREATE = "api_gateway.clients.orders:OrderClient._batch_create_orders"
_ORDERS = "order_service.repository"
_PUBLISH = "order_service.clients:ProducerClient.publish"
_MARK_SENT = "order_service.outbox.repository:mark_sent"
_PUBLISH_BATCH = "producer_service.publisher:publish_batch"
_CONFIRM = "service_kit.rabbitmq.batch_publish:_Batch.settled_one"
_STOCK = "inventory_service.operations"
_WRITE_PLAN = "inventory_service.repository:write_plan"
_UPDATE = "consumer_service.clients:InventoryClient.update_stock"
_SETTLE = "consumer_service.clients:OrderClient.settle_orders"

CRASH_POINTS = {
    "the gateway is about to send an order": CrashPoint("api_gateway", When.BEFORE, _CREATE),
    "the gateway has an order and has not responded": CrashPoint(
        "api_gateway", When.AFTER, _CREATE
    ),
    "users are about to be looked up": CrashPoint(
        "user_service", When.BEFORE, "user_service.operations:batch_get_users"
    ),
    "prices and stock are about to be looked up": CrashPoint(
        "inventory_service", When.BEFORE, f"{_STOCK}:check_stock"
    ),
    "an order is about to be stored": CrashPoint(
        "order_service", When.BEFORE, f"{_ORDERS}:insert_orders"
    ),
    "an order is stored and not relayed": CrashPoint(
        "order_service", When.AFTER, f"{_ORDERS}:insert_orders"
    ),
    "the relay is about to call the producer": CrashPoint("order_service", When.BEFORE, _PUBLISH),
    "the producer has responded and no event is marked": CrashPoint(
        "order_service", When.AFTER, _PUBLISH
    ),
    "the events are marked as sent": CrashPoint("order_service", When.AFTER, _MARK_SENT),
    "the producer is about to publish": CrashPoint("producer_service", When.BEFORE, _PUBLISH_BATCH),
    "the producer has published and has no confirm": CrashPoint(
        "producer_service", When.BEFORE, _CONFIRM
    ),
    "the producer has its confirms and has not responded": CrashPoint(
        "producer_service", When.AFTER, _PUBLISH_BATCH
    ),
    "the consumer is about to update stock": CrashPoint("consumer_service", When.BEFORE, _UPDATE),
    "stock is about to be committed": CrashPoint("inventory_service", When.AFTER, _WRITE_PLAN),
    "stock is committed and not reported": CrashPoint(
        "inventory_service", When.AFTER, f"{_STOCK}:update_stock"
    ),
    "stock is updated and no order is settled": CrashPoint("consumer_service", When.AFTER, _UPDATE),
    "a settlement is about to be stored": CrashPoint(
        "order_service", When.BEFORE, f"{_ORDERS}:settle_orders"
    ),
    "a settlement is stored and not reported": CrashPoint(
        "order_service", When.AFTER, f"{_ORDERS}:settle_orders"
    ),
    "orders are settled and no message is acked": CrashPoint(
        "consumer_service", When.AFTER, _SETTLE
    ),
    "the messages are acked": CrashPoint(
        "consumer_service", When.AFTER, "aiormq:Channel.basic_ack"
    ),
    "a cancellation is about to be stored": CrashPoint(
        "order_service", When.BEFORE, f"{_ORDERS}:cancel_order"
    ),
    "a cancellation is stored and not reported": CrashPoint(
        "order_service", When.AFTER, f"{_ORDERS}:cancel_order"
    ),
    "a restored order is about to be released": CrashPoint(
        "order_service", When.BEFORE, f"{_ORDERS}:release_orders"
    ),
    "a restored order is released and not reported": CrashPoint(
        "order_service", When.AFTER, f"{_ORDERS}:release_orders"
    ),
}
"""Every crash point, by a sentence that says where the lifecycle ends."""
