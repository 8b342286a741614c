"""Bringing the system up, in order, or not at all; and taking it down."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from launcher import broker, environment, health, orphans, ports, postgres, settings_check
from launcher.broker import Broker
from launcher.health import Check
from launcher.layout import GATEWAY, POSTGRES, RABBITMQ, Layout, Service
from launcher.postgres import EmbeddedPostgres
from launcher.problem import Problem
from launcher.programs import Program
from launcher.supervision import Supervisor
from service_kit.grpc.health import is_serving

_INFRASTRUCTURE_SECONDS = 120
_SERVICE_SECONDS = 90


@dataclass(frozen=True)
class RunningSystem:
    """What was started: the environment that the services got, and the broker that they use."""

    environment: dict[str, str]
    broker: Broker
    services: Sequence[Service]


@contextmanager
def only_one(layout: Layout) -> Iterator[None]:
    """Be the only launcher that starts or holds the system of this run directory."""
    layout.create()
    with (layout.run_dir / "launcher.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken = True
        else:
            taken = bool(Supervisor(layout).states())
        if taken:
            raise Problem(
                f"already running in {layout.run_dir}: see `./start-services.sh status`,"
                " or stop it with `./start-services.sh stop`"
            )
        yield


def start(
    layout: Layout, console: Console, services: Sequence[Service], *, outlive_us: bool
) -> RunningSystem:
    """Start PostgreSQL, RabbitMQ and `services`; return once all are healthy.

    On any failure, also an interruption, everything that was started is stopped again first.
    """
    left = stop(layout)
    if left:
        console.print(f"Ended what an earlier run had left behind: {', '.join(left)}")
    layout.create()
    completed = environment.complete(layout, os.environ)
    embedded = EmbeddedPostgres(layout, completed["POSTGRES_PASSWORD"])
    _require_valid(layout, services, embedded.urls() | completed)
    environment.keep_secrets(layout, completed)
    for variable in environment.port_variables(services, completed):
        ports.require_free(int(completed[variable]), completed["BIND_HOST"], variable)
    chosen = broker.choose(layout, completed, console.print)
    own_urls = _database_urls(embedded, completed)
    completed |= own_urls
    system = RunningSystem(completed, chosen, services)
    infrastructure = [embedded.program()] if own_urls else []
    infrastructure += [chosen.program] if chosen.program else []
    if not infrastructure and not services:
        raise Problem("nothing to start: the databases and the broker are there already")
    _write_environment_file(layout, system, embedded if own_urls else None)
    try:
        supervisor = Supervisor(layout)
        programs = [*infrastructure, *(_program(layout, service) for service in services)]
        supervisor.start(programs, completed, outlive_us=outlive_us)
        checks = _infrastructure_checks(chosen, own_urls)
        _start_together(supervisor, layout, console, checks, _INFRASTRUCTURE_SECONDS)
        checks = {service.name: _service_check(service, completed) for service in services}
        _start_together(supervisor, layout, console, checks, _SERVICE_SECONDS)
    except BaseException:
        stop(layout)
        raise
    return system


def stop(layout: Layout) -> list[str]:
    """Stop everything in reverse start order; tell which processes nobody supervised any more."""
    supervised = Supervisor(layout).stop()
    ended = orphans.end(layout.run_dir)
    layout.remove_sockets()
    # RabbitMQ's port mapper goes on by itself when its node has stopped, which is nothing to tell.
    return [] if supervised else ended


def _require_valid(
    layout: Layout, services: Sequence[Service], completed: Mapping[str, str]
) -> None:
    """Raise a Problem that names every variable which we or any of `services` would refuse."""
    found = settings_check.complaints(layout, services, completed) if services else {}
    found |= environment.complaints(completed)
    if found:
        lines = "".join(f"\n  {variable}: {complaint}" for variable, complaint in found.items())
        raise Problem(f"settings are missing or wrong:{lines}")


def _database_urls(embedded: EmbeddedPostgres, given: Mapping[str, str]) -> dict[str, str]:
    """The URLs of the databases that we are to run; a Problem if one that was given is no use."""
    for variable in embedded.urls().keys() & given.keys():
        complaint = postgres.complaint_of(given[variable])
        if complaint:
            raise Problem(f"the database at {variable} does not answer: {complaint}")
    return {name: url for name, url in embedded.urls().items() if name not in given}


def _program(layout: Layout, service: Service) -> Program:
    return Program(service.name, [sys.executable, "-m", service.name], layout.checkout)


def _infrastructure_checks(chosen: Broker, database_urls: Mapping[str, str]) -> dict[str, Check]:
    checks = dict[str, Check]()
    if database_urls:
        urls = database_urls.values()
        checks[POSTGRES] = lambda: not any(postgres.complaint_of(url) for url in urls)
    if chosen.program:
        endpoint = chosen.endpoint
        checks[RABBITMQ] = lambda: (
            not broker.complaint_of(endpoint.url) and broker.management_answers(endpoint)
        )
    return checks


def _service_check(service: Service, completed: Mapping[str, str]) -> Check:
    address = environment.own_address(completed, service.port_variable)
    return partial(health.http_ready if service is GATEWAY else is_serving, address)


def _start_together(
    supervisor: Supervisor,
    layout: Layout,
    console: Console,
    checks: Mapping[str, Check],
    seconds: float,
) -> None:
    """Start the programs that `checks` names, in order, and wait for each to pass its check."""
    for name in checks:
        supervisor.start_program(name)
    for name, check in checks.items():
        with console.status(f"Waiting for {name}"):
            health.wait(supervisor, layout, name, check, seconds)
        console.print(f"{name} is healthy")


def _write_environment_file(
    layout: Layout, system: RunningSystem, embedded: EmbeddedPostgres | None
) -> None:
    """Tell tests and tools where databases, broker and services are."""
    endpoint = system.broker.endpoint
    told = {"RABBITMQ_URL": endpoint.url, "RABBITMQ_MANAGEMENT_URL": endpoint.management_url}
    places = ("_DATABASE_URL", "_SERVICE_ADDR")
    told |= {name: value for name, value in system.environment.items() if name.endswith(places)}
    if embedded:
        told["POSTGRES_ADMIN_URL"] = embedded.administrator_url()
    environment.write_env_file(layout.environment_file, told)
