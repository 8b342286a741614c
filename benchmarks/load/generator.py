"""The open-loop load generator, a process of its own: `python -m benchmarks.load.generator …`.

Requests start by a schedule of random (Poisson) arrivals, however the server does, and latency
counts from the scheduled start. A generator that waits for responses before it continues would
leave out the moments in which the server is slow ("coordinated omission"). No maintained tool
that works this way is available from a distribution or as a wheel.

It can also drive a closed loop, for machines without wrk.
"""

import asyncio
import math
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import uvloop

from benchmarks.load import requests
from benchmarks.load.loops import LoadResult

MAX_CLIENTS = 1024
LAST_RESPONSES_SECONDS = 15.0
"""A request without a response this long after the last one was due has failed."""

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

NextDue = Callable[[], Awaitable[float | None]]
"""Returns when a client's next request is due, or was; None if it has no more to send."""


class _Load:
    """Clients with a keep-alive connection each, and the results of their requests."""

    def __init__(self, address: str, prepared: Sequence[bytes]) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._requests = cycle(prepared)
        self.clients = set[asyncio.Task[None]]()
        self.latencies: list[float] = []
        self.error_responses = 0
        self.failed = 0
        self.started = self.last_response = time.perf_counter()

    def start_client(self, next_due: NextDue) -> None:
        client = asyncio.create_task(self._send(next_due))
        self.clients.add(client)
        client.add_done_callback(self.clients.discard)

    async def _send(self, next_due: NextDue) -> None:
        try:
            reader, writer = await asyncio.open_connection(self._host, int(self._port))
            while (due := await next_due()) is not None:
                writer.write(next(self._requests))
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                self.last_response = time.perf_counter()
                self.latencies.append(self.last_response - due)
                self.error_responses += int(head[9:12]) >= 400
            writer.close()
        except (OSError, EOFError, asyncio.CancelledError):
            self.failed += 1

    async def finish(self) -> None:
        """Wait for the last responses; what has none has failed."""
        if self.clients:
            _, late = await asyncio.wait(self.clients, timeout=LAST_RESPONSES_SECONDS)
            for client in late:
                client.cancel()
            await asyncio.gather(*late)


async def _open_loop(address: str, prepared: Sequence[bytes], rate: float, seconds: float) -> _Load:
    waiting = asyncio.Queue[float | None]()
    idle = 0

    async def next_due() -> float | None:
        nonlocal idle
        idle += 1
        due = await waiting.get()
        idle -= 1
        return due

    gaps = random.Random(1)
    load = _Load(address, prepared)
    due = load.started
    end = due + seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        waiting.put_nowait(due)
        if waiting.qsize() > idle and len(load.clients) < MAX_CLIENTS:
            load.start_client(next_due)
        due += gaps.expovariate(rate)
    for _ in load.clients:
        waiting.put_nowait(None)
    await load.finish()
    while not waiting.empty():
        load.failed += waiting.get_nowait() is not None
    return load


async def _closed_loop(
    address: str, prepared: Sequence[bytes], clients: int, seconds: float
) -> _Load:
    end = time.perf_counter() + seconds

    async def next_due() -> float | None:
        now = time.perf_counter()
        return now if now < end else None

    load = _Load(address, prepared)
    for _ in range(clients):
        load.start_client(next_due)
    await asyncio.sleep(seconds)
    await load.finish()
    return load


def _percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of the `ordered` ones do not exceed; 0 if none exist."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def _result(load: _Load, cpu_seconds: float) -> LoadResult:
    ordered = [1000 * latency for latency in sorted(load.latencies)]
    percents = {f"p{percent:g}": percent for percent in (50, 90, 99, 99.9)} | {"max": 100}
    return LoadResult(
        responses=len(ordered),
        error_responses=load.error_responses,
        failed=load.failed,
        # To the last response: working off a backlog after the last request takes time.
        seconds=max(0.001, load.last_response - load.started),
        milliseconds={name: _percentile(ordered, percent) for name, percent in percents.items()},
        cpu_seconds=cpu_seconds,
    )


async def _run(
    address: str, prepared: Sequence[bytes], seconds: float, rate: float, clients: int
) -> LoadResult:
    cpu = time.process_time()
    load = await (
        _open_loop(address, prepared, rate, seconds)
        if rate
        else _closed_loop(address, prepared, clients, seconds)
    )
    return _result(load, time.process_time() - cpu)


def main(
    file: Path,
    address: str,
    *,
    seconds: Annotated[float, typer.Option()],
    rate: Annotated[float, typer.Option(help="Requests per second, open loop.")] = 0.0,
    clients: Annotated[int, typer.Option(help="Clients, closed loop.")] = 0,
) -> None:
    """Send the requests of a file to `host:port`; print the result as JSON."""
    result = uvloop.run(_run(address, requests.read(file), seconds, rate, clients))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    typer.run(main)
