"""The violations that several modules name, as sentences that begin with the promise's number."""

Violations = dict[str, list[str]]
"""The cases found of each violation."""

LOST = "I2 an accepted order is missing"
UNBALANCED = "I3 initial + adjustments <> stock + deducted - restored"
INCONSISTENT = "I3 a service found an inconsistency"
UNPUBLISHED = "I4 an event marked as sent was never published"
UNDELIVERED = "I4 a published event is neither in the ledger nor a dead letter"
QUEUE_NOT_DRAINED = "I4 the consumer's queue is not drained"
MOVED_TWICE = "I5 an order moved stock twice"
TWO_ORDERS = "I6 an idempotency key has two orders"
TWO_RESPONSES = "I6 an idempotency key returned two orders"
