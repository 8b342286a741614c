"""The running services with their databases, their broker and the links between them."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.injection.faulty_link import FaultyLink
from tests.faults.shop.service_process import ServiceProcess
from tests.support.api_client import ApiClient
from tests.support.infrastructure import Broker
from tests.support.ports import free_ports
from tests.support.postgres import Database
from tests.support.waiting import eventually

START_SECONDS = 15.0
"""The time that the start of a process may take on a busy machine."""
READY_SECONDS = 60.0
ADMIN = ("admin@example.com", "the administrator's own")
_INCONSISTENCY = '"inconsistency found"'


@dataclass
class Shop:
    """Six running services, and access to everything that they use."""

    folder: Path
    users: Database
    inventory: Database
    orders: Database
    broker: Broker
    processes: dict[str, ServiceProcess]
    links: dict[tuple[str, str], FaultyLink]
    gateway_urls: list[str]
    http: httpx.AsyncClient
    logs: Sequence[Path]
    admin_login: tuple[str, str] = ADMIN
    _read: dict[Path, int] = field(default_factory=dict)
    _marks: "itertools.count[int]" = field(default_factory=itertools.count)

    async def arm(self, service: str, crash_point: str, count: int, bug: str = "") -> Path:
        """Restart `service` so that it crashes when it reaches the crash point `count` times.

        Returns the file that exists once it has crashed. `bug` is planted as well; "" plants none.
        """
        mark = self.folder / f"crashed-{next(self._marks)}"
        process = self.processes[service]
        await process.stop()
        module = "tests.faults.injection.run_until_crash"
        await process.start("-m", module, service, str(count), str(mark), crash_point, bug)
        return mark

    def new_inconsistencies(self) -> list[str]:
        """Log lines of inconsistencies that the services found since the last call."""
        found = []
        for path in self.logs:
            with path.open("rb") as log:
                log.seek(self._read.get(path, 0))
                lines, newline, _ = log.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(lines + newline)
            found += [line for line in lines.decode().splitlines() if _INCONSISTENCY in line]
        return found

    @asynccontextmanager
    async def single_replica(self, service: str) -> AsyncIterator[None]:
        """Only the first replica of a service runs inside the block."""
        async with AsyncExitStack() as stack:
            for name, process in self.processes.items():
                if process.service == service and name != service:
                    await stack.enter_async_context(process.stopped())
            yield

    async def wait_until_ready(self) -> None:
        """Return once each gateway reaches all its dependencies."""

        async def statuses() -> list[int]:
            found = []
            for url in self.gateway_urls:
                try:
                    found.append((await self.http.get(f"{url}/readyz", timeout=5)).status_code)
                except httpx.TransportError:
                    found.append(0)
            return found

        await eventually(statuses, lambda found: set(found) == {200}, within=READY_SECONDS)

    @asynccontextmanager
    async def another_gateway(self, **variables: str) -> AsyncIterator[str]:
        """Another gateway with its own settings runs inside the block; yields its URL."""
        (port,) = free_ports(1)
        environment = self.processes["api_gateway"].environment | variables
        environment["API_GATEWAY_PORT"] = str(port)
        log_file = self.folder / f"api_gateway-{port}.log"
        process = ServiceProcess("api_gateway", environment, log_file)
        self.gateway_urls.append(f"http://127.0.0.1:{port}")
        await process.start()
        try:
            await self.wait_until_ready()
            yield self.gateway_urls[-1]
        finally:
            self.gateway_urls.pop()
            await process.stop()

    def anonymous(self) -> ApiClient:
        """A client without a token, of the first gateway."""
        return ApiClient(self.http)

    async def admin(self) -> ApiClient:
        """The administrator."""
        return await self.anonymous().log_in(*self.admin_login)
