"""The open-loop load generator, a process of its own: `python -m benchmarks.generator …`.

Requests start by a schedule of random (Poisson) arrivals that does not care how the server does,
and latency counts from the scheduled start. A generator that waits for answers before it goes on
would leave out just those moments in which the server is slow ("coordinated omission"). No
maintained tool that works this way can be had from a distribution or as a wheel, hence this one.

It can also be driven by its clients (closed loop), for machines that lack wrk.
"""

import asyncio
import json
import math
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, cast

import typer
import uvloop

from benchmarks import workload

MOST_CONNECTIONS = 1024
LAST_ANSWERS_SECONDS = 15.0
"""What is not answered this long after the last request was sent counts as broken."""

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
        self._load.answered(self, int(head[9:12]), self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


class _Load:
    """Sends requests and keeps what became of them; `freed` decides what a connection does next."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        self._address = host, port
        self._requests = cycle(requests)
        self._loop = asyncio.get_running_loop()
        self._opening = set[asyncio.Task[None]]()
        self.idle: list[_Connection] = []
        self.connections = 0
        self.sent = 0
        self.began = self.last_answer = time.perf_counter()
        self.latencies: list[float] = []
        self.outcomes: Counter[int | str] = Counter()
        self.freed: Callable[[_Connection], None] = self.idle.append

    async def connect(self) -> None:
        self.connections += 1
        try:
            _, connection = await self._loop.create_connection(
                lambda: _Connection(self), *self._address
            )
        except OSError:
            self.connections -= 1
            self.sent += 1
            self.outcomes["not connected"] += 1
        else:
            self.freed(connection)

    def connect_soon(self) -> None:
        task = self._loop.create_task(self.connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def send(self, connection: _Connection, due: float) -> None:
        self.sent += 1
        connection.send(next(self._requests), due)

    def answered(self, connection: _Connection, status: int, due: float) -> None:
        self.last_answer = time.perf_counter()
        self.latencies.append(self.last_answer - due)
        self.outcomes[status] += 1
        self.freed(connection)

    def lost(self, connection: _Connection) -> None:
        self.connections -= 1
        if connection.busy:
            self.outcomes["connection lost"] += 1
        elif connection in self.idle:
            self.idle.remove(connection)

    async def all_answered(self) -> None:
        await _until(lambda: sum(self.outcomes.values()) >= self.sent)
        self.outcomes["unanswered"] += max(0, self.sent - sum(self.outcomes.values()))


async def _until(done: Callable[[], bool]) -> None:
    """Return when it is done, or after LAST_ANSWERS_SECONDS."""
    deadline = time.perf_counter() + LAST_ANSWERS_SECONDS
    while not done() and time.perf_counter() < deadline:  # noqa: ASYNC110 - an event an answer costs more
        await asyncio.sleep(0.005)


async def _open_loop(load: _Load, rate: float, seconds: float) -> None:
    waiting = deque[float]()
    gaps = random.Random(1)

    def freed(connection: _Connection) -> None:
        if waiting:
            load.send(connection, waiting.popleft())
        else:
            load.idle.append(connection)

    load.freed = freed
    await asyncio.gather(*(load.connect() for _ in range(16)))
    due = load.began = time.perf_counter()  # uvloop counts in milliseconds
    end = due + seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if load.idle:
            load.send(load.idle.pop(), due)
        else:
            waiting.append(due)
            if load.connections < MOST_CONNECTIONS:
                load.connect_soon()
        due += gaps.expovariate(rate)
    await _until(lambda: not waiting)
    load.outcomes["never sent"] += len(waiting)
    load.sent += len(waiting)


async def _closed_loop(load: _Load, clients: int, seconds: float) -> None:
    load.began = time.perf_counter()
    end = load.began + seconds

    def freed(connection: _Connection) -> None:
        now = time.perf_counter()
        if now < end:
            load.send(connection, now)

    load.freed = freed
    await asyncio.gather(*(load.connect() for _ in range(clients)))
    await asyncio.sleep(end - time.perf_counter())


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that `percent` of the `ordered` ones do not exceed; 0 if there are none."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def _summary(load: _Load, cpu_seconds: float) -> dict[str, object]:
    ordered = [1000 * latency for latency in sorted(load.latencies)]
    answered = sum(count for outcome, count in load.outcomes.items() if isinstance(outcome, int))
    good = sum(
        n for outcome, n in load.outcomes.items() if isinstance(outcome, int) and outcome < 400
    )
    return {
        "answered": answered,
        "refused": answered - good,
        "broken": sum(load.outcomes.values()) - answered,
        "outcomes": {str(outcome): count for outcome, count in load.outcomes.items() if count},
        # To the last answer: a backlog that is worked off after the last request takes its time.
        "seconds": max(0.001, load.last_answer - load.began),
        "cpu_seconds": cpu_seconds,
        "milliseconds": {
            f"p{percent:g}": percentile(ordered, percent) for percent in (50, 90, 99, 99.9)
        }
        | {"max": ordered[-1] if ordered else 0.0},
    }


async def _run(
    address: str, requests: Sequence[bytes], seconds: float, rate: float, clients: int
) -> dict[str, object]:
    host, _, port = address.rpartition(":")
    load = _Load(host, int(port), requests)
    cpu = time.process_time()
    await (_open_loop(load, rate, seconds) if rate else _closed_loop(load, clients, seconds))
    await load.all_answered()
    return _summary(load, time.process_time() - cpu)


def main(
    requests: Path,
    address: str,
    *,
    seconds: Annotated[float, typer.Option()],
    rate: Annotated[float, typer.Option(help="Requests a second, open loop.")] = 0.0,
    clients: Annotated[int, typer.Option(help="Clients, closed loop.")] = 0,
) -> None:
    """Send the requests of a file to `host:port`; print what became of them as JSON."""
    outcome = uvloop.run(_run(address, workload.read(requests), seconds, rate, clients))
    sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    typer.run(main)
