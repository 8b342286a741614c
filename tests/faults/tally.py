"""What the rows of a run count, for the report of the whole matrix."""

from collections import Counter

from tests.faults.load import Load

TOTAL: Counter[str] = Counter()
"""Faults survived, orders sent, accepted, lost, doubled."""


def count(load: Load, faults: int) -> None:
    """Add what the buyers did since they were counted last, and how many faults they met."""
    TOTAL["faults"] += faults
    TOTAL["orders sent"] += load.sent - load.counted[0]
    TOTAL["orders accepted"] += len(load.accepted) - load.counted[1]
    TOTAL["lost"] += load.lost
    TOTAL["doubled"] += load.doubled
    load.counted = load.sent, len(load.accepted)
