"""What the rows of a run count, for the report of the whole matrix."""

from collections import Counter

TOTAL: Counter[str] = Counter()
"""Faults, orders sent and accepted, and what was found: lost, doubled, alarms of the audit."""
STEPS: set[str] = set()
"""The steps of an order's way at which a service died."""
