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
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, cast

import msgspec
import typer
import uvloop

from benchmarks.load import requests
from benchmarks.load.loops import LoadResult

MAX_CONNECTIONS = 1024
LAST_RESPONSES_SECONDS = 15.0
"""A request without a response this long after the last one was sent has failed."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class _Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._due = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due: float) -> None:
        self._due, self.busy = due, True
        if self._transport:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + len(_HEAD_END) + length:
            return
        self._buffer, self.busy = b"", False
        self._load.received(self, int(head[9:12]), self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


class _Load:
    """Sends requests over its connections and counts what becomes of them.

    When a connection is free, `next_due` returns when its next request is due, or was; None if no
    request waits.
    """

    def __init__(
        self, address: str, prepared: Sequence[bytes], next_due: Callable[[], float | None]
    ) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._requests = cycle(prepared)
        self._next_due = next_due
        self._opening = set[asyncio.Task[None]]()
        self._idle: list[_Connection] = []
        self._connections = 0
        self.sent = 0
        self.error_responses = 0
        self.failed = 0
        self.latencies: list[float] = []
        self.started = self.last_response = time.perf_counter()

    async def connect(self, count: int = 1) -> None:
        self._connections += count
        await asyncio.gather(*(self._connect() for _ in range(count)))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), self._host, int(self._port)
            )
        except OSError:
            self._connections -= 1
            self.sent += 1
            self.failed += 1
        else:
            self._free(connection)

    def dispatch(self) -> None:
        """Give a request that is due to an idle connection, or to a new one."""
        if self._idle:
            self._free(self._idle.pop())
        elif self._connections < MAX_CONNECTIONS:
            task = asyncio.create_task(self.connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _free(self, connection: _Connection) -> None:
        due = self._next_due()
        if due is None:
            self._idle.append(connection)
        else:
            self.sent += 1
            connection.send(next(self._requests), due)

    def received(self, connection: _Connection, status: int, due: float) -> None:
        self.last_response = time.perf_counter()
        self.latencies.append(self.last_response - due)
        self.error_responses += status >= 400
        self._free(connection)

    def lost(self, connection: _Connection) -> None:
        self._connections -= 1
        if connection.busy:
            self.failed += 1
        elif connection in self._idle:
            self._idle.remove(connection)

    async def finish(self) -> None:
        """Wait for the last responses; what has none has failed."""
        await _wait_until(lambda: len(self.latencies) + self.failed >= self.sent)
        self.failed = max(self.failed, self.sent - len(self.latencies))


async def _wait_until(done: Callable[[], bool]) -> None:
    """Return when it is done, or after LAST_RESPONSES_SECONDS."""
    deadline = time.perf_counter() + LAST_RESPONSES_SECONDS
    while not done() and time.perf_counter() < deadline:  # noqa: ASYNC110 - an event per response costs more
        await asyncio.sleep(0.005)


async def _open_loop(address: str, prepared: Sequence[bytes], rate: float, seconds: float) -> _Load:
    waiting = deque[float]()
    gaps = random.Random(1)
    load = _Load(address, prepared, lambda: waiting.popleft() if waiting else None)
    await load.connect(16)
    due = load.started = time.perf_counter()
    end = due + seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        waiting.append(due)
        load.dispatch()
        due += gaps.expovariate(rate)
    await _wait_until(lambda: not waiting)
    load.failed += len(waiting)
    load.sent += len(waiting)
    return load


async def _closed_loop(
    address: str, prepared: Sequence[bytes], clients: int, seconds: float
) -> _Load:
    def next_due() -> float | None:
        now = time.perf_counter()
        return now if now < end else None

    end = time.perf_counter() + seconds
    load = _Load(address, prepared, next_due)
    await load.connect(clients)
    await asyncio.sleep(end - time.perf_counter())
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
    await load.finish()
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
