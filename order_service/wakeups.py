"""Signals inside one order service: new events for the relay, settlements for those who wait."""

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Wakeups:
    """Hints only: whoever misses one finds the change by its slow poll of the database."""

    def __init__(self) -> None:
        self.outbox = asyncio.Event()
        self._watchers: dict[uuid.UUID, set[asyncio.Event]] = {}

    @contextmanager
    def watching(self, order_id: uuid.UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever the order's status changes inside the block."""
        changed = asyncio.Event()
        self._watchers.setdefault(order_id, set()).add(changed)
        try:
            yield changed
        finally:
            watchers = self._watchers[order_id]
            watchers.discard(changed)
            if not watchers:
                del self._watchers[order_id]

    def announce(self, order_ids: Iterable[uuid.UUID]) -> None:
        """Tell that these orders changed and that the outbox has events."""
        self.outbox.set()
        if self._watchers:
            for order_id in order_ids:
                for changed in self._watchers.get(order_id, ()):
                    changed.set()
