"""Signals inside one order service: new events for the relay, changed orders for waiting calls."""

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Wakeups:
    """Hints only: what misses one finds the change by its slow poll of the database."""

    def __init__(self) -> None:
        self.outbox = asyncio.Event()
        """Set when the outbox has new events."""
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

    def notify(self, order_ids: Iterable[uuid.UUID] = ()) -> None:
        """Signal that the outbox has new events and that these orders changed their status."""
        self.outbox.set()
        if self._watchers:
            for order_id in order_ids:
                for changed in self._watchers.get(order_id, ()):
                    changed.set()
