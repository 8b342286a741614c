"""The contract of the events: names of exchanges, queues and types, and the envelope's version.

An event is a CloudEvents 1.0 structured JSON message
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md) whose `id` is
the AMQP `message_id`, whose `type` is the routing key and whose `subject` is the order's id.
"""

EXCHANGE = "order.events"
DEAD_LETTER_EXCHANGE = "order.events.dead"

INVENTORY_QUEUE = "inventory.order-events"
DEAD_LETTER_QUEUE = "inventory.order-events.dead"
AUDIT_QUEUE = "order.events.audit"

ORDER_CREATED = "order.created"
ORDER_CONFIRMED = "order.confirmed"
ORDER_REJECTED = "order.rejected"
ORDER_CANCELLED = "order.cancelled"

EVENT_TYPES = (ORDER_CREATED, ORDER_CONFIRMED, ORDER_REJECTED, ORDER_CANCELLED)
INVENTORY_EVENT_TYPES = (ORDER_CREATED, ORDER_CANCELLED)
"""What the consumer handles; every other type in its queue is a dead letter."""

CONTENT_TYPE = "application/cloudevents+json"
SPEC_VERSION = "1.0"
SOURCE = "/order-service"
DATA_SCHEMA = "urn:ecommerce:order-events:v1"
"""The version of `data`; a consumer refuses versions that it does not know."""
