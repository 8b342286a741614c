"""The whole system as users start it, with access to its data and ways to make it fail."""

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

import httpx
import psutil

from launcher.layout import Layout
from launcher.supervisor import processes
from launcher.supervisor.supervisord import Supervisor
from tests.support.infrastructure import CHECKOUT, START, Broker
from tests.support.ports import free_port, free_ports
from tests.support.postgres import Database
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
_SETTINGS = {
    "JWT_SECRET": "a secret of the system tests, and of nobody else",
    "ADMIN_EMAIL": "admin@example.com",
    "ADMIN_PASSWORD": "the administrator's own",
    "PASSWORD_HASH_MEMORY_COST": "8",
    "LOGIN_RATE": "100000/minute",
}
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_EXPECTED_ERROR = re.compile('"event":"(dead letter|error when creating transport)')
START_SECONDS = 150
RESTART_SECONDS = 30.0


@dataclass
class System:
    """A running system: its script, processes, databases, broker and logs."""

    run_dir: Path
    environment: Mapping[str, str]
    settles: bool = True
    """False once orders did not settle in time: later tests then wait only a second for them."""

    def run(self, *arguments: str, timeout: float = START_SECONDS) -> "Completed":
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
        """The URL of the REST API."""
        return f"http://127.0.0.1:{self.environment['API_GATEWAY_PORT']}"

    def address(self, service: str) -> str:
        """The address of a service's gRPC server."""
        return f"127.0.0.1:{self.environment[f'{service.upper()}_PORT']}"

    @property
    def exported_environment(self) -> dict[str, str]:
        """The variables in the launcher's `environment.env`."""
        words = shlex.split((self.run_dir / "environment.env").read_text(), comments=True)
        return dict(word.split("=", 1) for word in words)

    @cached_property
    def users(self) -> Database:
        """user_service's database."""
        return Database(self.exported_environment["USER_DATABASE_URL"])

    @cached_property
    def inventory(self) -> Database:
        """inventory_service's database."""
        return Database(self.exported_environment["INVENTORY_DATABASE_URL"])

    @cached_property
    def orders(self) -> Database:
        """order_service's database."""
        return Database(self.exported_environment["ORDER_DATABASE_URL"])

    @property
    def broker(self) -> Broker:
        """The broker's only virtual host."""
        exported = self.exported_environment
        return Broker(exported["RABBITMQ_URL"], exported["RABBITMQ_MANAGEMENT_URL"], "/")

    def log(self, name: str) -> str:
        """Everything that a program logged."""
        return (self.run_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def unexpected_errors(self) -> list[str]:
        """Errors that services logged, except dead letters and lost broker connections."""
        logs = self.run_dir.joinpath("logs").glob("*_*.log")
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        errors = [line for line in lines if '"level":"error"' in line]
        return [line for line in errors if not _EXPECTED_ERROR.search(line)]

    def processes(self) -> list[psutil.Process]:
        """The running processes that were started for this run directory."""
        return processes.find(self.run_dir)

    async def status(self) -> dict[str, tuple[str, int]]:
        """Each program's state and pid, as `./start-services.sh status` prints them."""
        completed = await asyncio.to_thread(self.run, "status")
        found = re.findall(r"^(\w+) +([A-Z]+) +pid (\d+)", completed.stdout, re.MULTILINE)
        return {name: (state, int(pid)) for name, state, pid in found}

    async def states(self) -> dict[str, tuple[str, int]]:
        """As `status`, but asks the supervisor itself, which is faster."""
        supervisor = Supervisor(Layout(CHECKOUT, self.run_dir))
        states = await asyncio.to_thread(supervisor.states)
        return {state.name: (state.state, state.pid) for state in states}

    async def wait_for_restart(self, name: str, killed: int) -> None:
        """Return once a program whose process `killed` ended runs as another process."""
        await eventually(
            self.states,
            lambda states: states[name][0] == "RUNNING" and states[name][1] != killed,
            within=RESTART_SECONDS,
        )

    @asynccontextmanager
    async def paused(self, *names: str) -> AsyncIterator[None]:
        """The programs hang inside the block (SIGSTOP); their connections stay open."""
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
    async def without_restarts(self) -> AsyncIterator[Callable[[str], None]]:
        """Yields a function that kills a program; none is restarted before the end of the block.

        The supervisor hangs inside the block. After it the system is ready again.
        """
        status = await self.states()
        supervisor = int((self.run_dir / "supervisord.pid").read_text())
        os.kill(supervisor, signal.SIGSTOP)
        try:
            yield lambda name: os.kill(status[name][1], signal.SIGKILL)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        await self.wait_until_ready()

    async def wait_until_ready(self, url: str = "") -> None:
        """Return once the gateway, or another one at `url`, reaches all its dependencies."""

        async def status() -> int:
            try:
                return (await client.get(f"{url or self.gateway_url}/readyz")).status_code
            except httpx.TransportError:
                return 0

        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            await eventually(status, lambda found: found == 200, within=RESTART_SECONDS)

    @asynccontextmanager
    async def another_gateway(self, **variables: str) -> AsyncIterator[str]:
        """Another gateway, with its own settings, alongside the supervised one; yields its URL."""
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
            await self.wait_until_ready(url)
            yield url
        finally:
            process.terminate()
            status = await asyncio.wait_for(process.wait(), timeout=20)
        assert status == 0

    async def contents(self) -> dict[str, dict[str, tuple[int, str]]]:
        """The checksums of the tables, by database."""
        return {
            "users": await self.users.contents(),
            "inventory": await self.inventory.contents(),
            "orders": await self.orders.contents(),
        }

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """The block changes no row of any database."""
        await self.wait_until_settled()
        before = await self.contents()
        yield
        after = await self.contents()
        assert after == before, [name for name in before if after[name] != before[name]]

    async def wait_until_settled(self, within: float = 30.0) -> None:
        """Return once every order is settled and every event is published and handled."""

        async def outstanding() -> dict[str, int]:
            (found,) = await self.orders.rows(
                "SELECT count(*) FILTER (WHERE status = 'PENDING') AS pending,"
                " count(*) FILTER (WHERE next_republish_at IS NOT NULL) AS unanswered,"
                " (SELECT count(*) FROM outbox WHERE sent_at IS NULL) AS unsent FROM orders"
            )
            return found

        within, self.settles = (within if self.settles else 1.0), False
        await eventually(outstanding, lambda found: not any(found.values()), within=within)
        self.settles = True


Completed = subprocess.CompletedProcess[str]


def free_environment(run_dir: Path, **variables: str) -> dict[str, str]:
    """An environment for `./start-services.sh`: free ports, cheap hashes, and `variables`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith("COVERAGE_")
    }
    amqp, *ports = free_ports(1 + len(PORTS))
    return {
        **inherited,
        **_SETTINGS,
        **{name: str(port) for name, port in zip(PORTS, ports, strict=True)},
        "RABBITMQ_URL": f"amqp://guest:guest@localhost:{amqp}/",
        "RUN_DIR": str(run_dir),
        **variables,
    }


@contextmanager
def start_system(run_dir: Path, **variables: str) -> Iterator[System]:
    """The whole system runs in `run_dir` inside the block; no process may remain after it."""
    system = System(run_dir, free_environment(run_dir, **variables))
    started = system.run("--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield system
    finally:
        stopped = system.run("stop")
        remaining = system.processes()
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert remaining == []
