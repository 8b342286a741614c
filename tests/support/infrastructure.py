"""PostgreSQL and RabbitMQ for the tests, started by `start-services.sh --infra-only`."""

import os
import shlex
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.ports import free_port

CHECKOUT = Path(__file__).parents[2]
START = str(CHECKOUT / "start-services.sh")


@dataclass(frozen=True)
class Infrastructure:
    """Addresses of the database server and the broker."""

    admin_url: str
    broker_url: str
    management_url: str

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """The URL of a fresh, empty database, dropped afterwards."""
        name = f"test_{uuid.uuid4().hex}"
        await self._execute(f"CREATE DATABASE {name}")
        try:
            url = make_url(self.admin_url).set(database=name)
            yield url.render_as_string(hide_password=False)
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def virtual_host(self) -> AsyncIterator["Broker"]:
        """A fresh virtual host of the broker, deleted afterwards."""
        name = f"test-{uuid.uuid4().hex}"
        login = urlsplit(self.broker_url)
        broker = Broker(self.broker_url.rstrip("/") + f"/{name}", self.management_url, name)
        permissions = {"configure": ".*", "write": ".*", "read": ".*"}
        async with broker.management() as api:
            (await api.put(f"/api/vhosts/{name}")).raise_for_status()
            response = await api.put(f"/api/permissions/{name}/{login.username}", json=permissions)
            response.raise_for_status()
            try:
                yield broker
            finally:
                (await api.delete(f"/api/vhosts/{name}")).raise_for_status()

    async def _execute(self, statement: str) -> None:
        engine = create_async_engine(self.admin_url, isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                await connection.execute(text(statement))
        finally:
            await engine.dispose()


@dataclass(frozen=True)
class Broker:
    """A virtual host: its AMQP URL and its management API."""

    url: str
    management_url: str
    name: str

    @asynccontextmanager
    async def management(self) -> AsyncIterator[httpx.AsyncClient]:
        """The management API, logged in."""
        login = urlsplit(self.url)
        auth = (login.username or "guest", login.password or "guest")
        async with httpx.AsyncClient(base_url=self.management_url, auth=auth, timeout=10) as api:
            yield api

    async def peek(self, queue: str, count: int = 1000) -> list[dict[str, object]]:
        """The messages of a queue as the management page shows them; they stay in it."""
        request = {"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"}
        async with self.management() as api:
            response = await api.post(
                f"/api/queues/{quote(self.name, safe='')}/{queue}/get", json=request
            )
            response.raise_for_status()
            return list(response.json())


@contextmanager
def start_infrastructure(run_dir: Path) -> Iterator[Infrastructure]:
    """PostgreSQL and RabbitMQ run in `run_dir` inside the block."""
    port, management_port = free_port(), free_port()
    environment = {
        **os.environ,
        "RUN_DIR": str(run_dir),
        "RABBITMQ_URL": f"amqp://guest:guest@localhost:{port}/",
        "RABBITMQ_MANAGEMENT_PORT": str(management_port),
    }
    for variable in ("USER_DATABASE_URL", "INVENTORY_DATABASE_URL", "ORDER_DATABASE_URL"):
        environment.pop(variable, None)
    subprocess.run([START, "--infra-only", "--detach"], env=environment, check=True)
    try:
        lines = shlex.split((run_dir / "environment.env").read_text(), comments=True)
        found = dict(line.split("=", 1) for line in lines)
        yield Infrastructure(
            found["POSTGRES_ADMIN_URL"], found["RABBITMQ_URL"], found["RABBITMQ_MANAGEMENT_URL"]
        )
    finally:
        subprocess.run([START, "stop"], env=environment, check=True)
