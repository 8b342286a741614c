"""The lifecycle of a service: settings, logs, event loop, signals, background work, exit code."""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import structlog
import uvloop
from stamina.instrumentation import PrometheusOnRetryHook, set_on_retry_hooks

from service_kit.errors import PortUnavailable
from service_kit.observability import logs
from service_kit.pacing import log_retry
from service_kit.settings import ServiceSettings, SettingsError, load

log = structlog.get_logger(__name__)

S = TypeVar("S", bound=ServiceSettings)

DRAIN_SECONDS = 10.0
"""From SIGTERM to the end of the process; unfinished work is abandoned then."""

Serve = Callable[[S, asyncio.Event], Awaitable[None]]
"""Serves until the event is set."""


def run(name: str, settings: type[S], serve: Serve[S]) -> int:
    """Run `serve(settings, stop)` until it ends; SIGTERM and SIGINT set `stop`.

    Returns the process's exit code: 0 after a drain, 1 after a failure, 2 for invalid settings.
    """
    try:
        loaded = load(settings)
    except SettingsError as error:
        print(f"{name}: settings are missing or invalid:\n{error}", file=sys.stderr)
        return 2
    logs.configure(name, loaded.log_level)
    set_on_retry_hooks([log_retry, PrometheusOnRetryHook])
    _tune_gc()
    return uvloop.run(_until_stopped(serve, loaded))


@asynccontextmanager
async def background_task(
    work: Coroutine[None, None, None], stop: asyncio.Event, grace_seconds: float = 0.0
) -> AsyncIterator[None]:
    """Run `work` inside the block; after the block it has `grace_seconds` to finish on its own.

    If it ends earlier, `stop` is set and the end of the block raises its error, if any: a service
    whose relay or subscriber died must not appear healthy.
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


def _tune_gc() -> None:
    """Collect garbage rarely: requests make few cycles, and the search cost a tenth of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _until_stopped(serve: Serve[S], settings: S) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = asyncio.ensure_future(serve(settings, stop))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({service, stopping}, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(DRAIN_SECONDS):
            await service
    except TimeoutError:
        log.exception("drain took too long", seconds=DRAIN_SECONDS)
        return 1
    except PortUnavailable as error:
        log.error("cannot start", error=str(error))  # noqa: TRY400 - the message is enough
        return 1
    except Exception:
        log.exception("service failed")
        return 1
    finally:
        stopping.cancel()
    log.info("stopped")
    return 0
