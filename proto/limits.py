"""Limits of an order; each service enforces them on what it receives."""

MAX_ORDER_ITEMS = 100
"""Items of one order."""
MAX_QUANTITY = 1_000_000
"""Units of one product in one order."""
MAX_WAIT_SECONDS = 30
"""How long a request may wait for an order to be settled."""
