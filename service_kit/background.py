"""Work that runs beside the server for the whole life of a service."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def running(
    work: Coroutine[None, None, None], stop: asyncio.Event, grace_seconds: float = 0.0
) -> AsyncIterator[None]:
    """Run `work` inside the block; then it has `grace_seconds` to end by itself.

    If it ends before, `stop` is set and the block's end raises its error, if any: a service whose
    relay or subscriber died must not look alive.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        await asyncio.wait({task}, timeout=grace_seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
