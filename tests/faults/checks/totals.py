"""What a run of the fault matrix counts, for its report."""

from collections import Counter

COUNTS: Counter[str] = Counter()
"""Faults, orders sent and accepted, and what was found: lost, duplicated, false alarms."""
CRASH_POINTS_HIT: set[str] = set()
"""The crash points at which a service died."""
