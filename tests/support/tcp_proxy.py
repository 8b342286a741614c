"""A TCP proxy in front of a broker, database or service, which fails on demand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit, urlunsplit

from tests.support.ports import free_port
from tests.support.waiting import eventually

_CHUNK = 64 * 1024


class TcpProxy:
    """Forwards to `host:port` (or to a unix socket in the folder `host`) until it has to fail."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = free_port()
        self.accepted = 0
        """How many connections were accepted so far."""
        self.passed = 0
        """Bytes from clients that were forwarded."""
        self.held = 0
        """Bytes from clients that wait for the end of a pause."""

    @property
    def address(self) -> str:
        """The address of the proxy, as a gRPC target."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._writers) // 2

    def pause(self) -> None:
        """Accept connections and bytes, and forward nothing: the server hangs."""
        self._open.clear()

    def drop(self) -> None:
        """Reset every connection; accept new ones."""
        for writer in self._writers:
            writer.transport.abort()

    async def holding(self) -> None:
        """Return once the paused proxy holds bytes of a client."""

        async def held() -> int:
            return self.held

        await eventually(held)

    async def cut(self) -> None:
        """Reset every connection and refuse new ones: the server is down."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()
        # A connection accepted a moment ago must not outlive the cut.
        for pump in tuple(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def resume(self) -> None:
        """Forward again, held bytes first; listen again, on the same port."""
        self._open.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pump = asyncio.current_task()
        assert pump is not None
        self.accepted += 1
        self._pumps.add(pump)
        self._writers.add(writer)
        try:
            with suppress(OSError):
                await self._forward(reader, writer)
        except asyncio.CancelledError:
            pass  # by `cut`; asyncio.start_server would log it
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._pumps.discard(pump)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target
        if host.startswith("/"):
            upstream = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            upstream = await asyncio.open_connection(host, port)
        self._writers.add(upstream[1])
        directions = (
            asyncio.create_task(self._pump(reader, upstream[1], from_client=True)),
            asyncio.create_task(self._pump(upstream[0], writer, from_client=False)),
        )
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            upstream[1].transport.abort()
            self._writers.discard(upstream[1])

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            if not self._open.is_set():
                self.held += len(chunk) * from_client
                await self._open.wait()
                self.held -= len(chunk) * from_client
            self.passed += len(chunk) * from_client
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """A proxy in front of the server that `url` names, and the URL that leads through it.

    `url` is an AMQP or database URL (a unix socket too: `?host=/folder`) or `host:port`.
    """
    parts = urlsplit(url if "://" in url else f"tcp://{url}")
    folder = parse_qs(parts.query).get("host", [""])[0]
    default = 5432 if parts.scheme.startswith("postgresql") else 5672
    proxy = TcpProxy(folder or parts.hostname or "localhost", parts.port or default)
    await proxy.resume()
    try:
        login, at, _ = parts.netloc.rpartition("@")
        query = "" if folder else parts.query
        through = parts._replace(netloc=f"{login}{at}{proxy.address}", query=query)
        yield proxy, urlunsplit(through).removeprefix("tcp://")
    finally:
        await proxy.cut()
