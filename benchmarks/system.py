"""A system of the benchmark's own, started by start-services.sh as users start theirs."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg

from api_gateway.access_tokens import AccessTokens
from launcher.environment.files import read_env_file
from launcher.errors import LauncherError
from launcher.layout import POSTGRES, RABBITMQ, SERVICES, Layout
from launcher.rabbitmq import container, private_node
from launcher.supervisor.supervisord import Supervisor

CHECKOUT = Path(__file__).resolve().parents[1]
_START = str(CHECKOUT / "start-services.sh")
_START_SECONDS = 400
"""Preparing a fresh checkout is part of the first start."""
_STOP_SECONDS = 200
_UNLIMITED = "1000000/second"


@dataclass(frozen=True)
class System:
    """A running system: where it is, and ways to look into it."""

    run_dir: Path
    environment: dict[str, str]

    @property
    def gateway(self) -> str:
        """`host:port` of the gateway."""
        return f"127.0.0.1:{self.environment['API_GATEWAY_PORT']}"

    @property
    def supervisor(self) -> Supervisor:
        """What starts and stops its programs."""
        return Supervisor(Layout(CHECKOUT, self.run_dir))

    def pids(self) -> dict[str, int]:
        """The pid of each program that runs, PostgreSQL, RabbitMQ and supervisord included."""
        running = {state.name: state.pid for state in self.supervisor.states() if state.pid}
        process = self.supervisor.process()
        return running | ({"supervisord": process.pid} if process else {})

    def token(self, user_id: int, role: str = "customer") -> str:
        """An access token of a user, as a log-in would give it."""
        return AccessTokens(self.environment["JWT_SECRET"]).issue(user_id, role)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database: user, inventory or order."""
        return self.environment[f"{database.upper()}_DATABASE_URL"]

    @property
    def admin_url(self) -> str:
        """The SQLAlchemy URL of PostgreSQL's superuser."""
        return self.environment["POSTGRES_ADMIN_URL"]

    async def connect(self, database: str) -> "asyncpg.Connection[Any]":
        """A connection to a database: user, inventory or order."""
        return await asyncpg.connect(self.url(database).replace("+asyncpg", "", 1))

    async def administer(self, statement: str) -> None:
        """Execute a statement as PostgreSQL's superuser."""
        connection = await asyncpg.connect(self.admin_url.replace("+asyncpg", "", 1))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def running(run_dir: Path, **variables: str) -> Iterator[System]:
    """Run a system in `run_dir`, from an empty one, inside the block; leaves nothing behind."""
    if private_node.find_script() is None and container.engine_available():
        raise LauncherError(
            "install rabbitmq-server: the CPU of one in a container is not to be seen"
        )
    environment = _environment(run_dir, variables)
    _remove(environment, run_dir)
    try:
        started = _call(environment, "--detach", "--no-demo", seconds=_START_SECONDS)
        if started.returncode:
            raise LauncherError(f"start-services.sh failed:\n{started.stdout}{started.stderr}")
        known = read_env_file(run_dir / "secrets.env") | read_env_file(run_dir / "environment.env")
        system = System(run_dir, environment | known)
        if RABBITMQ not in system.pids():
            raise LauncherError("the CPU of a RabbitMQ that is not its own is not to be seen")
        yield system
    finally:
        _remove(environment, run_dir)


def _remove(environment: dict[str, str], run_dir: Path) -> None:
    if run_dir.exists():
        _kill(Supervisor(Layout(CHECKOUT, run_dir)))
        _call(environment, "stop", seconds=_STOP_SECONDS)
        shutil.rmtree(run_dir)


def _kill(supervisor: Supervisor) -> None:
    """End at once all that would leave nothing behind: to stop RabbitMQ in order takes long."""
    programs = [state.pid for state in supervisor.states() if state.name != POSTGRES and state.pid]
    process = supervisor.process()
    # supervisord first: it would start them again.
    for pid in [*([process.pid] if process else []), *programs]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _environment(run_dir: Path, variables: dict[str, str]) -> dict[str, str]:
    """The caller's environment without what places or tunes a system, and places of our own."""
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
    # All clients come from one address here.
    own["LOGIN_RATE"] = own["LOGIN_FAILURE_RATE"] = _UNLIMITED
    return inherited | own | variables


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _call(
    environment: dict[str, str], *arguments: str, seconds: float = 60
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
