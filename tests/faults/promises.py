"""What the matrix calls it when a promise is broken, where more than one place has to agree."""

Breaches = dict[str, list[str]]
"""Sentences that begin with the broken promise's number, and the cases found of each."""

LOST = "I2 an accepted order is gone"
UNBALANCED = "I3 initial + adjustments <> stock + deducted - restored"
ALARM = "I3 the running audit gave an alarm"
UNSEEN = "I4 a published event never was in the broker"
UNDELIVERED = "I4 a published event is neither in the ledger nor a dead letter"
UNFINISHED = "I4 the queue is not worked off"
MOVED_TWICE = "I5 stock moved twice"
TWO_ORDERS = "I6 a key is two orders"
ANSWERED_TWICE = "I6 a key was answered with two orders"
