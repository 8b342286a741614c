"""A RabbitMQ cluster of three nodes, behind a load balancer."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from launcher.rabbitmq import private_node
from tests.faults.injection.faulty_link import FaultyLink
from tests.support.infrastructure import Broker
from tests.support.ports import free_ports
from tests.support.waiting import eventually

NODES = 3
START_SECONDS = 120.0
_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
log.console = true
log.console.level = warning
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.relative = 0.2
cluster_partition_handling = ignore
cluster_formation.peer_discovery_backend = classic_config
"""


class LoadBalancer(FaultyLink):
    """A link to the first of several servers that accepts a connection."""

    targets: Sequence[int] = ()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self.targets:
            with suppress(OSError):
                _, probe = await asyncio.open_connection("127.0.0.1", port)
                probe.transport.abort()
                self._target = ("127.0.0.1", port)
                break
        await super()._forward(reader, writer)


@dataclass
class Node:
    """A RabbitMQ node: its name, its ports and its process."""

    folder: Path
    name: str
    port: int
    management_port: int
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, or restart; `wait_until_up` returns once it serves."""
        script = private_node.find_script()
        assert script is not None
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(script), cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        """Crash."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Shut down by SIGTERM."""
        await self._end(signal.SIGTERM)

    async def wait_until_up(self) -> None:
        """Return once it sees all nodes of the cluster as running."""
        url = f"http://127.0.0.1:{self.management_port}/api/nodes"

        async def running() -> int:
            async with httpx.AsyncClient(auth=("guest", "guest"), trust_env=False) as http:
                try:
                    nodes = (await http.get(url, timeout=5)).json()
                except (httpx.HTTPError, ValueError):
                    return 0
                return sum(bool(node.get("running")) for node in nodes)

        await eventually(running, lambda nodes: nodes == NODES, within=START_SECONDS, every=0.5)

    async def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            os.kill(self.process.pid, number)
            await self.process.wait()


@asynccontextmanager
async def start_cluster(folder: Path) -> AsyncIterator[tuple[Broker, list[Node]]]:
    """The cluster runs inside the block; its broker and nodes, of which the first is preferred."""
    epmd_port, *ports = free_ports(1 + 3 * NODES)
    names = [f"faults{number}@localhost" for number in range(1, NODES + 1)]
    nodes = [
        _node(folder / name, name, names, epmd_port, ports[3 * number : 3 * number + 3])
        for number, name in enumerate(names)
    ]
    epmd = await asyncio.create_subprocess_exec(
        shutil.which("epmd") or "epmd", "-port", str(epmd_port), "-address", "127.0.0.1"
    )
    try:
        for node in nodes:
            await node.start()
        for node in nodes:
            await node.wait_until_up()
        LoadBalancer.targets = [node.port for node in nodes]
        async with LoadBalancer.open(f"amqp://guest:guest@127.0.0.1:{nodes[0].port}/") as link:
            # The management API is that of the last node: tests kill the others.
            management = f"http://127.0.0.1:{nodes[-1].management_port}"
            yield Broker(link.url, management, "/"), nodes
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
        epmd.kill()
        await epmd.wait()


def _node(
    folder: Path, name: str, names: Sequence[str], epmd_port: int, ports: Sequence[int]
) -> Node:
    folder.mkdir(mode=0o700)
    port, management_port, dist_port = ports
    configuration = _CONFIGURATION.format(port=port, management_port=management_port) + "".join(
        f"cluster_formation.classic_config.nodes.{number} = {peer}\n"
        for number, peer in enumerate(names, start=1)
    )
    (folder / "rabbitmq.conf").write_text(configuration)
    (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    cookie = folder / ".erlang.cookie"
    cookie.write_text("fault matrix")
    cookie.chmod(0o400)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_DIST_PORT": str(dist_port),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RUNNING_UNDER_SYSTEMD": "true",
    }
    return Node(folder, name, port, management_port, environment)
