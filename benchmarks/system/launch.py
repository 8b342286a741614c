"""A separate system to measure, started by start-services.sh as users start theirs."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg

from api_gateway.access_tokens import AccessTokens
from launcher.environment.files import read_env_file
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.rabbitmq import container, private_node
from launcher.services import POSTGRES, RABBITMQ, SERVICES
from launcher.supervisor.supervisord import Supervisor

CHECKOUT = Path(__file__).resolve().parents[2]

_START = str(CHECKOUT / "start-services.sh")
_START_SECONDS = 400
"""The first start also prepares a fresh checkout."""
_STOP_SECONDS = 200
_UNLIMITED = "1000000/second"


@dataclass(frozen=True)
class System:
    """A running system: its addresses, processes and databases (user, inventory and order)."""

    run_dir: Path
    environment: dict[str, str]

    @property
    def gateway(self) -> str:
        """`host:port` of the gateway."""
        return f"127.0.0.1:{self.environment['API_GATEWAY_PORT']}"

    @property
    def supervisor(self) -> Supervisor:
        """The supervisord that starts and stops its programs."""
        return Supervisor(Layout(CHECKOUT, self.run_dir))

    def pids(self) -> dict[str, int]:
        """The pid of each running program, with PostgreSQL, RabbitMQ and supervisord."""
        running = {state.name: state.pid for state in self.supervisor.states() if state.pid}
        process = self.supervisor.process()
        return running | ({"supervisord": process.pid} if process else {})

    def token(self, user_id: int, role: str = "customer") -> str:
        """An access token for a user, as a login returns it."""
        return AccessTokens(self.environment["JWT_SECRET"]).issue(user_id, role)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return self.environment[f"{database.upper()}_DATABASE_URL"]

    @property
    def admin_url(self) -> str:
        """The SQLAlchemy URL of PostgreSQL's superuser."""
        return self.environment["POSTGRES_ADMIN_URL"]

    @asynccontextmanager
    async def connect(self, database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """A connection to a database inside the block."""
        async with _connect(self.url(database)) as connection:
            yield connection

    def fetch_value(self, database: str, statement: str, *parameters: object) -> Any:
        """The first value that a statement returns, on a connection of its own."""

        async def fetch() -> Any:
            async with self.connect(database) as connection:
                return await connection.fetchval(statement, *parameters)

        return asyncio.run(fetch())

    async def execute_as_admin(self, statement: str) -> None:
        """Execute a statement as PostgreSQL's superuser."""
        async with _connect(self.admin_url) as connection:
            await connection.execute(statement)


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def run_system(run_dir: Path, **variables: str) -> Iterator[System]:
    """Run an empty system in `run_dir` inside the block; leaves nothing behind."""
    if private_node.find_script() is None and container.engine_available():
        raise LauncherError("install rabbitmq-server: the CPU of a container cannot be measured")
    environment = _environment(run_dir, variables)
    _remove(environment, run_dir)
    try:
        started = _start_services(environment, "--detach", "--no-demo", seconds=_START_SECONDS)
        if started.returncode:
            raise LauncherError(f"start-services.sh failed:\n{started.stdout}{started.stderr}")
        written = read_env_file(run_dir / "secrets.env") | read_env_file(
            run_dir / "environment.env"
        )
        system = System(run_dir, environment | written)
        if RABBITMQ not in system.pids():
            raise LauncherError("the CPU of a RabbitMQ outside the system cannot be measured")
        yield system
    finally:
        _remove(environment, run_dir)


def _remove(environment: dict[str, str], run_dir: Path) -> None:
    if run_dir.exists():
        _kill(Supervisor(Layout(CHECKOUT, run_dir)))
        _start_services(environment, "stop", seconds=_STOP_SECONDS)
        shutil.rmtree(run_dir)


def _kill(supervisor: Supervisor) -> None:
    """Kill what leaves nothing behind when killed: an orderly stop of RabbitMQ takes long."""
    programs = [state.pid for state in supervisor.states() if state.name != POSTGRES and state.pid]
    process = supervisor.process()
    # supervisord first: it would restart the others.
    for pid in [*([process.pid] if process else []), *programs]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _environment(run_dir: Path, variables: dict[str, str]) -> dict[str, str]:
    """The caller's environment without settings of the system, with free ports and `run_dir`."""
    read_by_services = {
        field.upper()
        for service in SERVICES
        for field in import_module(f"{service.name}.settings").Settings.model_fields
    }
    read_by_launcher = ("RABBITMQ_", "POSTGRES_", "API_GATEWAY_", "DEMO_")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in read_by_services and not name.startswith(read_by_launcher)
    }
    broker, management, *ports = _free_ports(2 + len(SERVICES))
    own = {service.port_variable: str(port) for service, port in zip(SERVICES, ports, strict=True)}
    own["RUN_DIR"] = str(run_dir)
    own["RABBITMQ_URL"] = f"amqp://guest:guest@localhost:{broker}/"
    own["RABBITMQ_MANAGEMENT_PORT"] = str(management)
    # All clients have one address here.
    own["LOGIN_RATE"] = own["LOGIN_FAILURE_RATE"] = _UNLIMITED
    return inherited | own | variables


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start_services(
    environment: dict[str, str], *arguments: str, seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_START, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
