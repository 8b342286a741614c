"""A PostgreSQL and a RabbitMQ that tests may crash, started as users start them."""

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
from tests.support.infrastructure import Infrastructure, start_infrastructure
from tests.support.postgres import Database
from tests.support.system import System
from tests.support.waiting import eventually

RECOVERY_SECONDS = 60.0


@dataclass(frozen=True)
class FaultyInfrastructure:
    """A database server and a broker, and ways to make them fail."""

    infrastructure: Infrastructure
    system: System

    async def kill(self, name: str) -> None:
        """Crash `postgres` or `rabbitmq`; return once it is restarted and takes connections."""
        pid = await self._pid(name)
        os.kill(pid, signal.SIGKILL)
        await self._wait_for_recovery(name, pid)

    @asynccontextmanager
    async def down(self, name: str) -> AsyncIterator[None]:
        """Crash `postgres` or `rabbitmq`, and prevent its restart inside the block."""
        pid = await self._pid(name)
        supervisor = int((self.system.run_dir / "supervisord.pid").read_text())
        os.kill(supervisor, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)
        await self._wait_for_recovery(name, pid)

    async def _wait_for_recovery(self, name: str, killed: int) -> None:
        await self.system.wait_for_restart(name, killed)
        connect = {"postgres": self._connect_postgres, "rabbitmq": self._connect_rabbitmq}[name]

        async def connects() -> bool:
            try:
                await connect()
            except (OSError, asyncpg.PostgresError, Unavailable):
                return False
            return True

        await eventually(connects, within=RECOVERY_SECONDS)

    async def _connect_postgres(self) -> None:
        await Database(self.infrastructure.admin_url).value("SELECT 1")

    async def _connect_rabbitmq(self) -> None:
        async with open_connection(self.infrastructure.broker_url, "fault tests"):
            pass

    async def _pid(self, name: str) -> int:
        return (await self.system.status())[name][1]

    async def rabbitmqctl(self, *arguments: str) -> None:
        """Run the broker's own command line tool."""
        node = (self.system.run_dir / "programs" / "rabbitmq.sh").read_text()
        exports = "".join(f"{line}\n" for line in node.splitlines() if not line.startswith("exec "))
        script = private_node.find_script()
        assert script is not None
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            f'{exports}exec {script.with_name("rabbitmqctl")} "$@"',
            "rabbitmqctl",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


@contextmanager
def start_faulty_infrastructure(run_dir: Path) -> Iterator[FaultyInfrastructure]:
    """PostgreSQL and RabbitMQ run in `run_dir` inside the block."""
    with start_infrastructure(run_dir) as infrastructure:
        environment = {**os.environ, "RUN_DIR": str(run_dir)}
        yield FaultyInfrastructure(infrastructure, System(run_dir, environment))
