"""The six services as children of the tests, each restarted when it dies, each link in our hands.

PostgreSQL and RabbitMQ are started by `start-services.sh`; the services run as `python -m NAME`.
They are children here, and not supervisord's, so that every link can go through a proxy.
"""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.faults.links import Link
from tests.faults.points import POINTS
from tests.faults.store import Store
from tests.support.infrastructure import CHECKOUT, Broker, Infrastructure
from tests.support.ports import free_ports
from tests.support.waiting import eventually
from tests.system.shop import Caller

SERVICES = (
    "user_service",
    "inventory_service",
    "producer_service",
    "order_service",
    "consumer_service",
    "api_gateway",
)
LINKS = (
    ("api_gateway", "order_service"),
    ("order_service", "user_service"),
    ("order_service", "inventory_service"),
    ("order_service", "producer_service"),
    ("producer_service", "broker"),
    ("consumer_service", "broker"),
    ("consumer_service", "inventory_service"),
    ("consumer_service", "order_service"),
    ("order_service", "database"),
    ("inventory_service", "database"),
    ("user_service", "database"),
)
RECOVERY_SECONDS = 30.0
"""Within this after the end of a fault every accepted order is settled."""
START_SECONDS = 15.0
"""What the start of a process may take on a busy machine, before its recovery begins."""
RESTART_SECONDS = 0.2
STOP_SECONDS = 20.0
ADMIN = ("admin@example.com", "the administrator's own")
JWT_SECRET = "a secret of the fault matrix, and of nobody else, long enough for HS512 too"
_NEVER = "86400"
"""The sweeper repairs much; rows that do not name it must hold without its help."""


class Child:
    """A service's process, started again whenever it dies until it is stopped."""

    def __init__(self, service: str, environment: Mapping[str, str], log: Path) -> None:
        self.service = service
        self.environment = dict(environment)
        self.starts = 0
        self.log_file = log
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._first: Sequence[str] = ()
        self._spawning = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *first: str) -> None:
        """Start; `first` are the arguments of a wrapper that runs in the service's place once."""
        self._first = first
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> int:
        """End in order, by SIGTERM; the exit code."""
        await self._let_go()
        with suppress(ProcessLookupError):
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await self._process.wait()

    async def kill_for_good(self) -> None:
        """Crash, and stay away until `start`."""
        await self._let_go()
        self._signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Ended in order inside the block."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    def kill(self) -> bool:
        """Crash; it is started again. False if it was not there, and so could not."""
        return self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end in order; it is started again."""
        self._signal(signal.SIGTERM)

    @asynccontextmanager
    async def hung(self) -> AsyncIterator[None]:
        """A process that does nothing inside the block, and keeps its connections."""
        self._signal(signal.SIGSTOP)
        hung = self.pid
        try:
            yield
            assert psutil.Process(hung).status() == psutil.STATUS_STOPPED
        finally:
            self._signal(signal.SIGCONT)

    async def restarted(self, starts: int, within: float = 60.0) -> None:
        """Return once it was started more than `starts` times."""

        async def count() -> int:
            return self.starts

        await eventually(count, lambda found: found > starts, within=within)

    def log(self) -> str:
        """Everything that it ever logged."""
        return self.log_file.read_text(errors="replace")

    async def _let_go(self) -> None:
        # Not while it starts the process, which would then be nobody's.
        async with self._spawning:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.gather(self._keeper, return_exceptions=True)
                self._keeper = None

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            await self._process.wait()
            await asyncio.sleep(RESTART_SECONDS)
            async with self._spawning:
                await self._spawn()

    async def _spawn(self) -> None:
        command = self._first or ("-m", self.service)
        self._first = ()
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=CHECKOUT,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1

    def _signal(self, number: signal.Signals) -> bool:
        assert self._process is not None
        running = self._process.returncode is None
        if running:
            os.kill(self._process.pid, number)
        return running


@dataclass
class Shop:
    """The running services, their databases and broker, and the links between them."""

    folder: Path
    users: Store
    inventory: Store
    orders: Store
    broker: Broker
    children: dict[str, Child]
    links: dict[tuple[str, str], Link]
    gateway_urls: list[str]
    http: httpx.AsyncClient
    logs: Sequence[Path]
    account: tuple[str, str] = ADMIN
    _read: dict[Path, int] = field(default_factory=dict)
    _marks: "itertools.count[int]" = field(default_factory=itertools.count)

    async def arm(self, service: str, step: str, count: int, bug: str = "") -> Path:
        """Start `service` again so that it dies at the step; the file that tells that it did."""
        mark = self.folder / f"died-{next(self._marks)}"
        child = self.children[service]
        await child.stop()
        wrapper = ("-m", "tests.faults.crash_point", service, str(count), str(mark), step, bug)
        await child.start(*wrapper)
        return mark

    def alarms(self) -> list[str]:
        """What the running audits reported as broken since this was asked last."""
        found = []
        for path in self.logs:
            with path.open("rb") as log:
                log.seek(self._read.get(path, 0))
                whole, end, _ = log.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(whole + end)
            found += [line for line in whole.decode().splitlines() if '"audit: broken"' in line]
        return found

    @asynccontextmanager
    async def alone(self, service: str) -> AsyncIterator[None]:
        """Only the first copy of a service runs inside the block."""
        async with AsyncExitStack() as stack:
            for name, child in self.children.items():
                if child.service == service and name != service:
                    await stack.enter_async_context(child.away())
            yield

    async def ready(self) -> None:
        """Return once each gateway reaches all its neighbours."""

        async def answers() -> list[int]:
            found = []
            for url in self.gateway_urls:
                try:
                    found.append((await self.http.get(f"{url}/readyz", timeout=5)).status_code)
                except httpx.TransportError:
                    found.append(0)
            return found

        await eventually(answers, lambda found: set(found) == {200}, within=60.0)

    @asynccontextmanager
    async def gateway(self, **variables: str) -> AsyncIterator[str]:
        """One more gateway, with settings of its own, inside the block: its URL."""
        (port,) = free_ports(1)
        environment = self.children["api_gateway"].environment | variables
        environment["API_GATEWAY_PORT"] = str(port)
        child = Child("api_gateway", environment, self.folder / f"api_gateway-{port}.log")
        self.gateway_urls.append(f"http://127.0.0.1:{port}")
        await child.start()
        try:
            await self.ready()
            yield self.gateway_urls[-1]
        finally:
            self.gateway_urls.pop()
            await child.stop()

    def nobody(self) -> Caller:
        """A caller without a token, through the first gateway."""
        return Caller(self.http)

    async def admin(self) -> Caller:
        """The administrator."""
        return await self.nobody().logged_in(*self.account)


@asynccontextmanager
async def shop_running(
    infrastructure: Infrastructure,
    folder: Path,
    *,
    linked: bool = False,
    copies: Mapping[str, int] | None = None,
    broker: Broker | None = None,
    **variables: str | None,
) -> AsyncIterator[Shop]:
    """All services on fresh databases and a fresh virtual host, healthy inside the block.

    `linked` puts a proxy into each link; `copies` runs more than one of a service;
    `variables` are added to the environment of all; None takes one away.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        databases = {
            name: await enter(infrastructure.database()) for name in ("USER", "INVENTORY", "ORDER")
        }
        if broker is None:
            broker = await enter(infrastructure.virtual_host())
        links = {
            (user, used): await enter(Link.before(_target(used, user, databases, broker)))
            for user, used in LINKS
            if linked and used in ("broker", "database")
        }
        counts = {service: (copies or {}).get(service, 1) for service in SERVICES}
        ports = iter(free_ports(sum(counts.values())))
        instances = {
            service: list(itertools.islice(ports, counts[service])) for service in SERVICES
        }
        addresses = {service: _address(ports) for service, ports in instances.items()}
        if linked:
            for user, used in LINKS:
                if used not in ("broker", "database"):
                    address = f"127.0.0.1:{instances[used][0]}"
                    links[user, used] = await enter(Link.before(address))
        wanted = {**_environment(databases, broker, addresses), **variables}
        base = {name: value for name, value in wanted.items() if value is not None}
        children = {}
        for service, own_ports in instances.items():
            environment = base | _own_links(service, links)
            for number, port in enumerate(own_ports, start=1):
                name = service if number == 1 else f"{service}-{number}"
                environment = environment | {f"{service.upper()}_PORT": str(port)}
                children[name] = Child(service, environment, folder / f"{name}.log")
        stack.push_async_callback(_stop_all, children)
        urls = [f"http://127.0.0.1:{port}" for port in instances["api_gateway"]]
        http = await enter(
            httpx.AsyncClient(
                base_url=urls[0],
                timeout=30,
                limits=httpx.Limits(max_connections=200),
                trust_env=False,
            )
        )
        shop = Shop(
            folder,
            Store(databases["USER"]),
            Store(databases["INVENTORY"]),
            Store(databases["ORDER"]),
            broker,
            children,
            links,
            urls,
            http,
            [child.log_file for child in children.values()],
        )
        for child in children.values():
            await child.start()
        await shop.ready()
        yield shop


async def _stop_all(children: Mapping[str, Child]) -> None:
    await asyncio.gather(*(child.stop() for child in children.values()))


def _target(used: str, user: str, databases: Mapping[str, str], broker: Broker) -> str:
    if used == "broker":
        return broker.url
    return databases[user.removesuffix("_service").upper()]


def _address(ports: Sequence[int]) -> str:
    # gRPC's own scheme for several addresses (https://grpc.github.io/grpc/core/md_doc_naming.html).
    listed = ",".join(f"127.0.0.1:{port}" for port in ports)
    return listed if len(ports) == 1 else f"ipv4:{listed}"


def _environment(
    databases: Mapping[str, str], broker: Broker, addresses: Mapping[str, str]
) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **inherited,
        **{f"{name}_DATABASE_URL": url for name, url in databases.items()},
        **{f"{service.upper()}_ADDR": address for service, address in addresses.items()},
        "RABBITMQ_URL": broker.url,
        "JWT_SECRET": JWT_SECRET,
        "ADMIN_EMAIL": ADMIN[0],
        "ADMIN_PASSWORD": ADMIN[1],
        "PASSWORD_HASH_MEMORY_COST": "8",
        "LOGIN_RATE": "100000/minute",
        "LOGIN_FAILURE_RATE": "100000/minute",
        "ORDER_REOFFER_SECONDS": _NEVER,
        # The running audits look oftener than by default: what is under way must not alarm them.
        "ORDER_AUDIT_SECONDS": "1",
        "INVENTORY_AUDIT_SECONDS": "1",
    }


def _own_links(service: str, links: Mapping[tuple[str, str], Link]) -> dict[str, str]:
    environment = {}
    for (user, used), link in links.items():
        if user != service:
            continue
        if used == "broker":
            environment["RABBITMQ_URL"] = link.url
        elif used == "database":
            environment[f"{service.removesuffix('_service').upper()}_DATABASE_URL"] = link.url
        else:
            environment[f"{used.upper()}_ADDR"] = link.url
    return environment


def steps_of(service: str) -> list[str]:
    """The steps at which this service may die."""
    return [step for step, point in POINTS.items() if point.service == service]
