"""Deletes events that were sent long enough ago."""

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from order_service.outbox import repository
from service_kit.errors import ServiceError
from service_kit.pacing import retry_forever

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 1.0


class Pruner:
    """Keeps sent events for `retention_seconds`; safe with several order services running."""

    def __init__(self, engine: AsyncEngine, retention_seconds: float) -> None:
        self._engine = engine
        self._retention_seconds = retention_seconds

    async def run(self) -> None:
        """Prune at a fixed interval until cancelled."""
        while True:
            async for attempt in retry_forever("prune the outbox", ServiceError):
                with attempt:
                    await self.prune()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def prune(self) -> int:
        """Delete every event that was sent long enough ago, in batches; returns how many."""
        total = 0
        while True:
            deleted = await repository.prune(self._engine, self._retention_seconds)
            total += deleted
            if deleted < repository.PRUNE_BATCH_SIZE:
                break
        if total:
            log.info("outbox pruned", count=total)
        return total
