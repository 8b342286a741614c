"""Starts the system in order, completely or not at all, and stops it."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from launcher import ports
from launcher.environment import secrets, variables
from launcher.environment.files import write_env_file
from launcher.environment.validation import require_valid
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.postgres import probe as postgres_probe
from launcher.postgres.server import EmbeddedPostgres
from launcher.rabbitmq import probe as rabbitmq_probe
from launcher.rabbitmq.broker import Broker, choose_broker
from launcher.services import GATEWAY, POSTGRES, RABBITMQ, Service
from launcher.supervisor import processes
from launcher.supervisor.health import HealthCheck, http_ready, wait_until_healthy
from launcher.supervisor.programs import Program
from launcher.supervisor.supervisord import Supervisor
from service_kit.grpc.health import is_serving

_INFRASTRUCTURE_SECONDS = 120
_SERVICE_SECONDS = 90


@dataclass(frozen=True)
class RunningSystem:
    """What was started: the services, their environment, and the broker they use."""

    environment: dict[str, str]
    broker: Broker
    services: Sequence[Service]


@contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Inside the block this is the only launcher of the run directory; LauncherError otherwise."""
    layout.create()
    with (layout.run_dir / "launcher.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = True
        else:
            running = bool(Supervisor(layout).states())
        if running:
            raise LauncherError(
                f"already running in {layout.run_dir}: see `./start-services.sh status`,"
                " or stop it with `./start-services.sh stop`"
            )
        yield


def start(
    layout: Layout, console: Console, services: Sequence[Service], *, detach: bool
) -> RunningSystem:
    """Start PostgreSQL, RabbitMQ and `services`; return once all are healthy.

    If anything fails or interrupts it, everything that was started is stopped first. With `detach`
    the system keeps running after this process.
    """
    leftovers = stop(layout)
    if leftovers:
        console.print(f"Stopped processes left behind by an earlier run: {', '.join(leftovers)}")
    layout.create()
    environment = variables.complete(layout, os.environ)
    embedded = EmbeddedPostgres(layout, environment["POSTGRES_PASSWORD"])
    require_valid(layout, services, embedded.urls() | environment)
    secrets.store(layout, environment)
    for variable in variables.port_variables(services, environment):
        ports.require_free(int(environment[variable]), environment["BIND_HOST"], variable)
    broker = choose_broker(layout, environment, console.print)
    embedded_urls = _embedded_database_urls(embedded, environment)
    environment |= embedded_urls
    infrastructure = [embedded.program()] if embedded_urls else []
    infrastructure += [broker.program] if broker.program else []
    if not infrastructure and not services:
        raise LauncherError("nothing to start: the databases and the broker already run")
    system = RunningSystem(environment, broker, services)
    _write_environment_file(layout, system, embedded if embedded_urls else None)
    try:
        supervisor = Supervisor(layout)
        programs = [*infrastructure, *(_program(layout, service) for service in services)]
        supervisor.start(programs, environment, detach=detach)
        checks = _infrastructure_checks(broker, embedded_urls)
        _start_programs(supervisor, layout, console, checks, _INFRASTRUCTURE_SECONDS)
        checks = {service.name: _service_check(service, environment) for service in services}
        _start_programs(supervisor, layout, console, checks, _SERVICE_SECONDS)
    except BaseException:
        stop(layout)
        raise
    return system


def stop(layout: Layout) -> list[str]:
    """Stop everything in reverse start order; return which programs ran without a supervisor."""
    supervised = Supervisor(layout).stop()
    stopped = processes.stop_all(layout.run_dir)
    layout.remove_sockets()
    # RabbitMQ's port mapper outlives its node: under a supervisor that is nothing to report.
    return [] if supervised else stopped


def _embedded_database_urls(embedded: EmbeddedPostgres, given: Mapping[str, str]) -> dict[str, str]:
    """The URLs of the databases that are not given; LauncherError if a given one is unavailable."""
    for variable in embedded.urls().keys() & given.keys():
        error = postgres_probe.connection_error(given[variable])
        if error is not None:
            raise LauncherError(f"the database at {variable} is unavailable: {error}")
    return {name: url for name, url in embedded.urls().items() if name not in given}


def _program(layout: Layout, service: Service) -> Program:
    return Program(service.name, [sys.executable, "-m", service.name], layout.checkout)


def _infrastructure_checks(
    broker: Broker, database_urls: Mapping[str, str]
) -> dict[str, HealthCheck]:
    checks = dict[str, HealthCheck]()
    if database_urls:
        urls = database_urls.values()
        checks[POSTGRES] = lambda: all(postgres_probe.connection_error(url) is None for url in urls)
    if broker.program:
        endpoint = broker.endpoint
        checks[RABBITMQ] = lambda: (
            rabbitmq_probe.connection_error(endpoint.url) is None
            and rabbitmq_probe.has_management_page(endpoint)
        )
    return checks


def _service_check(service: Service, environment: Mapping[str, str]) -> HealthCheck:
    address = variables.local_address(environment, service.port_variable)
    return partial(http_ready if service is GATEWAY else is_serving, address)


def _start_programs(
    supervisor: Supervisor,
    layout: Layout,
    console: Console,
    checks: Mapping[str, HealthCheck],
    seconds: float,
) -> None:
    """Start the programs that `checks` names, in order, and wait until each is healthy."""
    for name in checks:
        supervisor.start_program(name)
    for name, check in checks.items():
        with console.status(f"Waiting for {name}"):
            wait_until_healthy(supervisor, layout, name, check, seconds)
        console.print(f"{name} is healthy")


def _write_environment_file(
    layout: Layout, system: RunningSystem, embedded: EmbeddedPostgres | None
) -> None:
    """Write the addresses of databases, broker and services for tests and commands."""
    endpoint = system.broker.endpoint
    addresses = {"RABBITMQ_URL": endpoint.url, "RABBITMQ_MANAGEMENT_URL": endpoint.management_url}
    suffixes = ("_DATABASE_URL", "_SERVICE_ADDR")
    addresses |= {name: url for name, url in system.environment.items() if name.endswith(suffixes)}
    if embedded:
        addresses["POSTGRES_ADMIN_URL"] = embedded.superuser_url()
    write_env_file(layout.environment_file, addresses)
