"""Events: every one that is marked as sent was published, and was handled or dead-lettered."""

from producer_service.topology import AUDIT_LENGTH
from proto.events import AUDIT_QUEUE, DEAD_LETTER_QUEUE
from tests.faults.checks.violations import UNDELIVERED, UNPUBLISHED, Violations
from tests.faults.shop.shop import Shop
from tests.support import queues
from tests.support.postgres import Rows

_SENT = "SELECT id::text, order_id::text, type, sent_at FROM outbox WHERE sent_at IS NOT NULL"
_RESERVATIONS = "SELECT order_id::text, state FROM reservations"


async def missing(shop: Shop, *, audit_queue_available: bool) -> Violations:
    """Sent events that never reached the broker, or were never handled."""
    sent = await shop.orders.rows(_SENT)
    rows = await shop.inventory.rows(_RESERVATIONS)
    states = {row["order_id"]: row["state"] for row in rows}
    dead = await queues.message_ids(shop.broker, DEAD_LETTER_QUEUE)
    undelivered = [
        event
        for event in sent
        if event["id"] not in dead
        and (
            (event["type"] == "order.created" and event["order_id"] not in states)
            or (
                event["type"] == "order.cancelled"
                and states.get(event["order_id"]) in (None, "DEDUCTED")
            )
        )
    ]
    unpublished = await _not_audited(shop, sent) if audit_queue_available else []
    return {
        UNDELIVERED: [f"{event['type']} {event['id']}" for event in undelivered],
        UNPUBLISHED: [event["id"] for event in unpublished],
    }


async def _not_audited(shop: Shop, sent: Rows) -> Rows:
    """The sent events that must still be in the audit queue and are not."""
    copies = [copy.message_id for copy in await queues.queued_messages(shop.broker, AUDIT_QUEUE)]
    if len(copies) >= AUDIT_LENGTH:
        # The full queue drops its oldest messages. Events sent after the oldest copy are newer.
        sent_at = {event["id"]: event["sent_at"] for event in sent}
        sent = [event for event in sent if event["sent_at"] > sent_at[copies[0]]]
    present = set(copies)
    return [event for event in sent if event["id"] not in present]
