"""A link between two processes that can be cut, hang, lose bytes, or be slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

from tests.support.tcp_proxy import TcpProxy

_CHUNK = 64 * 1024


class FaultyLink(TcpProxy):
    """A TCP proxy with latency, and with loss in each direction separately."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.url = ""
        self.latency_seconds = 0.0
        """The delay of every byte."""
        self.lose_requests = False
        """Whether bytes from clients are dropped."""
        self.lose_responses = False
        """Whether bytes from servers are dropped: the work is done and the client never knows."""
        self.lost_bytes = 0
        self.affected = 0
        """How many bytes and connections a fault affected."""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["FaultyLink"]:
        """A link to the server at `url` (AMQP, database, or host:port); clients use its `url`."""
        parts = urlsplit(url if "://" in url else f"tcp://{url}")
        folder = parse_qs(parts.query).get("host", [""])[0]
        default = 5432 if parts.scheme.startswith("postgresql") else 5672
        link = cls(folder or parts.hostname or "localhost", parts.port or default)
        await link.resume()
        login, at, _ = parts.netloc.rpartition("@")
        through = parts._replace(
            netloc=f"{login}{at}{link.address}", query="" if folder else parts.query
        )
        link.url = urlunsplit(through).removeprefix("tcp://")
        try:
            yield link
        finally:
            link.heal()
            await link.cut()

    def drop(self) -> None:
        """Reset every connection; accept new ones."""
        self.affected += self.connections
        super().drop()

    def heal(self) -> None:
        """End loss and latency; connections that lost bytes are reset."""
        if self.lost_bytes:
            self.drop()
        self.lose_requests = self.lose_responses = False
        self.latency_seconds = 0.0
        self.lost_bytes = 0

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        loop, slow = asyncio.get_running_loop(), False
        delayed: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(delayed, writer))
        try:
            while chunk := await reader.read(_CHUNK):
                if self.lose_requests if from_client else self.lose_responses:
                    self.lost_bytes += len(chunk)
                    self.affected += len(chunk)
                    continue
                if not self._open.is_set():
                    self.affected += len(chunk)
                    self.held += len(chunk) * from_client
                    await self._open.wait()
                    self.held -= len(chunk) * from_client
                self.passed += len(chunk) * from_client
                # Once slow, always through the queue: bytes must not overtake each other.
                slow = slow or self.latency_seconds > 0
                if slow:
                    self.affected += len(chunk)
                    delayed.put_nowait((loop.time() + self.latency_seconds, chunk))
                else:
                    writer.write(chunk)
                    await writer.drain()
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    @staticmethod
    async def _send(
        delayed: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await delayed.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(chunk)
            await writer.drain()
