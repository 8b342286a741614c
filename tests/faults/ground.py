"""A PostgreSQL and a RabbitMQ that a row may hurt, started as users start them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from launcher.rabbitmq import private_node
from service_kit.errors import Unavailable
from service_kit.rabbitmq.connection import open_connection
from tests.faults.store import Store
from tests.support.infrastructure import Infrastructure, started
from tests.support.system import System
from tests.support.waiting import eventually

SERVING_SECONDS = 60.0


@dataclass(frozen=True)
class Ground:
    """What the services stand on, and ways to shake it."""

    infrastructure: Infrastructure
    system: System

    async def kill(self, name: str) -> None:
        """Crash `postgres` or `rabbitmq`; return once it was started again and serves."""
        pid = await self._pid(name)
        os.kill(pid, signal.SIGKILL)
        await self._serving_again(name, pid)

    @asynccontextmanager
    async def down(self, name: str) -> AsyncIterator[None]:
        """Crash `postgres` or `rabbitmq`, and keep it away inside the block."""
        pid = await self._pid(name)
        supervisor = int((self.system.run_dir / "supervisord.pid").read_text())
        os.kill(supervisor, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)
        await self._serving_again(name, pid)

    async def _serving_again(self, name: str, killed: int) -> None:
        await self.system.restarted(name, killed)
        connect = {"postgres": self._connect_postgres, "rabbitmq": self._connect_rabbitmq}[name]

        async def serves() -> bool:
            try:
                await connect()
            except (OSError, asyncpg.PostgresError, Unavailable):
                return False
            return True

        await eventually(serves, within=SERVING_SECONDS)

    async def _connect_postgres(self) -> None:
        await Store(self.infrastructure.admin_url).value("SELECT 1")

    async def _connect_rabbitmq(self) -> None:
        async with open_connection(self.infrastructure.broker_url, "is it back?"):
            pass

    async def _pid(self, name: str) -> int:
        return (await self.system.status())[name][1]

    async def rabbitmqctl(self, *arguments: str) -> None:
        """Run the broker's own tool against it."""
        node = (self.system.run_dir / "programs" / "rabbitmq.sh").read_text()
        surroundings = "".join(
            f"{line}\n" for line in node.splitlines() if not line.startswith("exec ")
        )
        script = private_node.find_script()
        assert script is not None
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            f'{surroundings}exec {script.with_name("rabbitmqctl")} "$@"',
            "rabbitmqctl",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()


@contextmanager
def ground(run_dir: Path) -> Iterator[Ground]:
    """PostgreSQL and RabbitMQ in `run_dir` inside the block."""
    with started(run_dir) as infrastructure:
        environment = {**os.environ, "RUN_DIR": str(run_dir)}
        yield Ground(infrastructure, System(run_dir, environment))
