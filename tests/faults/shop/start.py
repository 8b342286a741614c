"""Start a shop: `python -m NAME` for each service, on fresh databases and a fresh virtual host.

PostgreSQL and RabbitMQ are those of `start-services.sh`. The services are child processes of the
tests, not of supervisord, so that every link can go through a proxy.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from tests.faults.injection.faulty_link import FaultyLink
from tests.faults.shop.service_process import ServiceProcess
from tests.faults.shop.shop import ADMIN, Shop
from tests.faults.shop.topology import LINKS, SERVICES
from tests.support.infrastructure import Broker, Infrastructure
from tests.support.ports import free_ports
from tests.support.postgres import Database

JWT_SECRET = "a secret of the fault matrix, and of nobody else, long enough for HS512 too"
_A_DAY = "86400"

Links = dict[tuple[str, str], FaultyLink]


@asynccontextmanager
async def start_shop(
    infrastructure: Infrastructure,
    folder: Path,
    *,
    linked: bool = False,
    replicas: Mapping[str, int] | None = None,
    broker: Broker | None = None,
    **variables: str | None,
) -> AsyncIterator[Shop]:
    """All services run inside the block, from when they are ready.

    `linked` puts a proxy into each link; `replicas` runs more than one process of a service;
    `variables` are added to the environment of all services; None removes one.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        databases = {
            name: await enter(infrastructure.database()) for name in ("USER", "INVENTORY", "ORDER")
        }
        if broker is None:
            broker = await enter(infrastructure.virtual_host())
        ports = _ports(replicas or {})
        links = await _open_links(stack, databases, broker, ports) if linked else {}
        addresses = {service: _address(own) for service, own in ports.items()}
        settings = {**_environment(databases, broker, addresses), **variables}
        environment = {name: value for name, value in settings.items() if value is not None}
        processes = _processes(folder, environment, ports, links)
        stack.push_async_callback(_stop_all, processes)
        urls = [f"http://127.0.0.1:{port}" for port in ports["api_gateway"]]
        limits = httpx.Limits(max_connections=200)
        http = await enter(
            httpx.AsyncClient(base_url=urls[0], timeout=30, limits=limits, trust_env=False)
        )
        shop = Shop(
            folder=folder,
            users=Database(databases["USER"]),
            inventory=Database(databases["INVENTORY"]),
            orders=Database(databases["ORDER"]),
            broker=broker,
            processes=processes,
            links=links,
            gateway_urls=urls,
            http=http,
            logs=[process.log_file for process in processes.values()],
        )
        for process in processes.values():
            await process.start()
        await shop.wait_until_ready()
        yield shop


def _ports(replicas: Mapping[str, int]) -> dict[str, list[int]]:
    counts = {service: replicas.get(service, 1) for service in SERVICES}
    ports = iter(free_ports(sum(counts.values())))
    return {service: list(itertools.islice(ports, counts[service])) for service in SERVICES}


async def _open_links(
    stack: AsyncExitStack,
    databases: Mapping[str, str],
    broker: Broker,
    ports: Mapping[str, Sequence[int]],
) -> Links:
    links = {}
    for client, server in LINKS:
        if server == "broker":
            url = broker.url
        elif server == "database":
            url = databases[client.removesuffix("_service").upper()]
        else:
            url = f"127.0.0.1:{ports[server][0]}"
        links[client, server] = await stack.enter_async_context(FaultyLink.open(url))
    return links


def _processes(
    folder: Path,
    environment: Mapping[str, str],
    ports: Mapping[str, Sequence[int]],
    links: Links,
) -> dict[str, ServiceProcess]:
    processes = {}
    for service, own_ports in ports.items():
        settings = {**environment, **_link_settings(service, links)}
        for number, port in enumerate(own_ports, start=1):
            name = service if number == 1 else f"{service}-{number}"
            own = {**settings, f"{service.upper()}_PORT": str(port)}
            processes[name] = ServiceProcess(service, own, folder / f"{name}.log")
    return processes


async def _stop_all(processes: Mapping[str, ServiceProcess]) -> None:
    await asyncio.gather(*(process.stop() for process in processes.values()))


def _address(ports: Sequence[int]) -> str:
    # gRPC's scheme for several addresses (https://grpc.github.io/grpc/core/md_doc_naming.html).
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
        # Republishing repairs many faults: tests that do not name it must pass without it.
        "ORDER_REPUBLISH_SECONDS": _A_DAY,
        # More often than by default: orders in progress must not be reported as inconsistent.
        "ORDER_CONSISTENCY_SECONDS": "1",
        "INVENTORY_CONSISTENCY_SECONDS": "1",
    }


def _link_settings(service: str, links: Links) -> dict[str, str]:
    settings = {}
    for (client, server), link in links.items():
        if client != service:
            continue
        if server == "broker":
            settings["RABBITMQ_URL"] = link.url
        elif server == "database":
            settings[f"{service.removesuffix('_service').upper()}_DATABASE_URL"] = link.url
        else:
            settings[f"{server.upper()}_ADDR"] = link.url
    return settings
