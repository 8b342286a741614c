"""The whole system as users start it, with ways to look behind its back and to hurt it."""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from launcher.layout import Layout
from launcher.supervisor import processes
from launcher.supervisor.supervisord import Supervisor
from tests.support.infrastructure import CHECKOUT, START, Broker
from tests.support.ports import free_port, free_ports
from tests.support.waiting import eventually

PORTS = (
    "API_GATEWAY_PORT",
    "USER_SERVICE_PORT",
    "INVENTORY_SERVICE_PORT",
    "ORDER_SERVICE_PORT",
    "PRODUCER_SERVICE_PORT",
    "CONSUMER_SERVICE_PORT",
    "RABBITMQ_MANAGEMENT_PORT",
    "INVENTORY_SERVICE_METRICS_PORT",
    "ORDER_SERVICE_METRICS_PORT",
)
_OWN = {
    "JWT_SECRET": "a secret of the system tests, and of nobody else",
    "ADMIN_EMAIL": "admin@example.com",
    "ADMIN_PASSWORD": "the administrator's own",
    "PASSWORD_HASH_MEMORY_COST": "8",
    "LOGIN_RATE": "100000/minute",
}
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_NO_FAULT = re.compile('"event":"(dead letter|error when creating transport)')
START_SECONDS = 150
UP_AGAIN_SECONDS = 30.0

_TABLES = r"""
SELECT format(
    'SELECT %L AS name, count(*) AS rows, md5(string_agg(t::text, E''\n'' ORDER BY t::text))'
    ' AS checksum FROM %I AS t', tablename, tablename) AS checksum
FROM pg_tables WHERE schemaname = 'public'
"""

Rows = list[dict[str, Any]]


class Database:
    """A service's database, asked directly; one question at a time."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("+asyncpg", "", 1)
        self._connection: Any = None

    async def _connected(self) -> Any:
        # Servers are killed here: the connection of a moment ago may be gone.
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url, timeout=10, command_timeout=10)
        return self._connection

    async def close(self) -> None:
        """Close the connection; the next question opens another one."""
        if self._connection is not None:
            await self._connection.close()
        self._connection = None

    async def rows(self, statement: str, *parameters: object) -> Rows:
        """What a statement returns."""
        connection = await self._connected()
        return [dict(row) for row in await connection.fetch(statement, *parameters)]

    async def value(self, statement: str, *parameters: object) -> Any:
        """The only column of the only row, or None without a row."""
        rows = await self.rows(statement, *parameters)
        return next(iter(rows[0].values())) if rows else None

    async def contents(self) -> dict[str, tuple[int, str]]:
        """For each table its number of rows and a checksum of them all."""
        tables = await self.rows(_TABLES)
        found = await self.rows(" UNION ALL ".join(table["checksum"] for table in tables))
        return {row["name"]: (row["rows"], row["checksum"]) for row in found}


@dataclass
class System:
    """A system of the tests' own: its script, processes, databases, broker and logs."""

    run_dir: Path
    environment: Mapping[str, str]
    settles: bool = True
    """False once orders did not settle in time: no other test waits that long for them again."""

    def run(self, *arguments: str, timeout: float = START_SECONDS) -> "Done":
        """`./start-services.sh` with these arguments."""
        return subprocess.run(
            [START, *arguments],
            env=dict(self.environment),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def gateway_url(self) -> str:
        """Where the REST API is."""
        return f"http://127.0.0.1:{self.environment['API_GATEWAY_PORT']}"

    def address(self, service: str) -> str:
        """Where a service's gRPC server is."""
        return f"127.0.0.1:{self.environment[f'{service.upper()}_PORT']}"

    @property
    def told(self) -> dict[str, str]:
        """What the launcher wrote for tests and tools."""
        words = shlex.split((self.run_dir / "environment.env").read_text(), comments=True)
        return dict(word.split("=", 1) for word in words)

    @cached_property
    def users(self) -> Database:
        """user_service's database."""
        return Database(self.told["USER_DATABASE_URL"])

    @cached_property
    def inventory(self) -> Database:
        """inventory_service's database."""
        return Database(self.told["INVENTORY_DATABASE_URL"])

    @cached_property
    def orders(self) -> Database:
        """order_service's database."""
        return Database(self.told["ORDER_DATABASE_URL"])

    async def disconnect(self) -> None:
        """Close the connections to the databases."""
        for database in (self.users, self.inventory, self.orders):
            await database.close()

    @property
    def broker(self) -> Broker:
        """The broker's only virtual host."""
        return Broker(self.told["RABBITMQ_URL"], self.told["RABBITMQ_MANAGEMENT_URL"], "/")

    def log(self, name: str) -> str:
        """Everything that a program logged."""
        return (self.run_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def faults(self) -> list[str]:
        """What services logged as errors of their own: dead letters and a broker away are none."""
        logs = self.run_dir.joinpath("logs").glob("*_*.log")
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        errors = [line for line in lines if '"level":"error"' in line]
        return [line for line in errors if not _NO_FAULT.search(line)]

    def processes(self) -> list[psutil.Process]:
        """Every process that was started for this run directory and still runs."""
        return processes.find(self.run_dir)

    async def status(self) -> dict[str, tuple[str, int]]:
        """Each program's state and pid, as `./start-services.sh status` prints them."""
        done = await asyncio.to_thread(self.run, "status")
        found = re.findall(r"^(\w+) +([A-Z]+) +pid (\d+)", done.stdout, re.MULTILINE)
        return {name: (state, int(pid)) for name, state, pid in found}

    async def states(self) -> dict[str, tuple[str, int]]:
        """As `status`, without the second that its script takes to start."""
        supervisor = Supervisor(Layout(CHECKOUT, self.run_dir))
        states = await asyncio.to_thread(supervisor.states)
        return {state.name: (state.state, state.pid) for state in states}

    async def restarted(self, name: str, killed: int) -> None:
        """Return once a program that was killed runs as another process."""
        await eventually(
            self.states,
            lambda states: states[name][0] == "RUNNING" and states[name][1] != killed,
            within=UP_AGAIN_SECONDS,
        )

    @asynccontextmanager
    async def paused(self, *names: str) -> AsyncIterator[None]:
        """Programs that hang inside the block, without losing a connection by themselves."""
        status = await self.states()
        hung = [status[name][1] for name in names]
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in hung:
                os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def unattended(self) -> AsyncIterator[Callable[[str], None]]:
        """Inside the block what is ended by the function it gives stays away; after it all is well.

        The supervisor hangs meanwhile.
        """
        status = await self.states()
        supervisor = int((self.run_dir / "supervisord.pid").read_text())
        os.kill(supervisor, signal.SIGSTOP)
        try:
            yield lambda name: os.kill(status[name][1], signal.SIGKILL)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        await self.ready()

    async def ready(self, url: str = "") -> None:
        """Return once the gateway, or another one at `url`, reaches all its neighbours."""

        async def answer() -> int:
            try:
                return (await client.get(f"{url or self.gateway_url}/readyz")).status_code
            except httpx.TransportError:
                return 0

        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            await eventually(answer, lambda status: status == 200, within=UP_AGAIN_SECONDS)

    @asynccontextmanager
    async def another_gateway(self, **variables: str) -> AsyncIterator[str]:
        """One more gateway beside the supervised one, with settings of its own: its URL."""
        port = str(free_port())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "api_gateway"),
            cwd=CHECKOUT,
            env={**self.environment, **variables, "API_GATEWAY_PORT": port},
            stdout=asyncio.subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            await self.ready(url)
            yield url
        finally:
            process.terminate()
            status = await asyncio.wait_for(process.wait(), timeout=20)
        assert status == 0

    async def contents(self) -> dict[str, dict[str, tuple[int, str]]]:
        """What is stored, database by database and table by table."""
        return {
            "users": await self.users.contents(),
            "inventory": await self.inventory.contents(),
            "orders": await self.orders.contents(),
        }

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """Whatever happens inside the block, not a row of any database changes by it."""
        await self.at_rest()
        before = await self.contents()
        yield
        assert await self.contents() == before

    async def at_rest(self, within: float = 30.0) -> None:
        """Return once every order is settled and every event was published and handled."""

        async def outstanding() -> dict[str, int]:
            (found,) = await self.orders.rows(
                "SELECT count(*) FILTER (WHERE status = 'PENDING') AS pending,"
                " count(*) FILTER (WHERE next_offer_at IS NOT NULL) AS unanswered,"
                " (SELECT count(*) FROM outbox WHERE sent_at IS NULL) AS unsent FROM orders"
            )
            return found

        within, self.settles = (within if self.settles else 1.0), False
        await eventually(outstanding, lambda found: not any(found.values()), within=within)
        self.settles = True


Done = subprocess.CompletedProcess[str]


def free_environment(run_dir: Path, **variables: str) -> dict[str, str]:
    """An environment for `./start-services.sh`: free ports, cheap hashes, `variables` on top."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith("COVERAGE_")
    }
    amqp, *ports = free_ports(1 + len(PORTS))
    return {
        **inherited,
        **_OWN,
        **{name: str(port) for name, port in zip(PORTS, ports, strict=True)},
        "RABBITMQ_URL": f"amqp://guest:guest@localhost:{amqp}/",
        "RUN_DIR": str(run_dir),
        **variables,
    }


@contextmanager
def running(run_dir: Path, **variables: str) -> Iterator[System]:
    """The whole system in `run_dir` inside the block; no process may be left after it."""
    system = System(run_dir, free_environment(run_dir, **variables))
    started = system.run("--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield system
    finally:
        stopped = system.run("stop")
        left = system.processes()
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert left == []
