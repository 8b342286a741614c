"""A service's life: settings, logs, event loop, signals, exit code."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import uvloop

from service_kit import logs
from service_kit.grpc_server import PortUnavailable
from service_kit.settings import ServiceSettings, SettingsError, load

log = structlog.get_logger(__name__)

S = TypeVar("S", bound=ServiceSettings)

DRAIN_SECONDS = 10.0
"""From SIGTERM to the end; what is not finished by then is given up."""


Entry = Callable[[S, asyncio.Event], Awaitable[None]]


def run(name: str, settings: type[S], serve: Entry[S], **commands: Entry[S]) -> int:
    """Run `serve(settings, stop)`, or the command that the first argument names.

    SIGTERM and SIGINT set `stop`. Returns the process's exit code: 0 after a drain, 1 after a
    failure, 2 for faulty settings or an unknown command.
    """
    entries = {"": serve, **commands}
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in entries:
        print(f"{name}: no command {command!r}; there is: {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        loaded = load(settings)
    except SettingsError as error:
        print(f"{name}: settings are missing or wrong:\n{error}", file=sys.stderr)
        return 2
    logs.configure(name, loaded.log_level)
    _calm_collector()
    return uvloop.run(_until_stopped(entries[command], loaded))


def _calm_collector() -> None:
    """Collect garbage cycles rarely: requests make few, and looking for them cost a tenth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _until_stopped(entry: Entry[S], settings: S) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = asyncio.ensure_future(entry(settings, stop))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({service, stopping}, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(DRAIN_SECONDS):
            await service
    except TimeoutError:
        log.exception("drain took too long", seconds=DRAIN_SECONDS)
        return 1
    except PortUnavailable as error:
        log.error("cannot start", error=str(error))  # noqa: TRY400 - the cause is plain
        return 1
    except Exception:
        log.exception("service failed")
        return 1
    finally:
        stopping.cancel()
    log.info("stopped")
    return 0
