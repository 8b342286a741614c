"""compose.yaml: valid, complete, and without default secrets."""

import os
import re
import stat
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from launcher.rabbitmq import container
from launcher.services import GATEWAY, SERVICES, Service
from service_kit.settings import ServiceSettings
from tests.support.documented_commands import commands
from tests.support.infrastructure import CHECKOUT

COMPOSE = CHECKOUT / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE)["services"])


def test_it_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*check, COMPOSE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_it_runs_what_the_launcher_runs(services: dict[str, Any]) -> None:
    assert services.keys() == {"postgres", "rabbitmq", *(service.name for service in SERVICES)}


def test_every_service_waits_for_healthy_dependencies(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        for dependency, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}, (name, dependency)


def test_secrets_have_no_default() -> None:
    text = COMPOSE.read_text()
    for secret in ("JWT_SECRET", "ADMIN_PASSWORD", "POSTGRES_PASSWORD", "RABBITMQ_PASSWORD"):
        uses = re.findall(rf"\$\{{{secret}([^}}]*)\}}", text)
        assert uses, secret
        assert set(uses) == {":?"}, secret


def test_the_documented_command_creates_every_secret_in_a_private_file(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@"')
    docker.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands("compose")],
        cwd=tmp_path,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "compose --env-file .run/compose.env up --build --wait\n"
    env_file = tmp_path / ".run" / "compose.env"
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    secrets = dict(line.split("=") for line in env_file.read_text().splitlines())
    assert secrets.keys() == set(re.findall(r"\$\{(\w+):\?\}", COMPOSE.read_text()))
    assert all(re.fullmatch(r"[0-9a-zA-Z]{32,}", secret) for secret in secrets.values())


def test_its_broker_is_the_image_that_the_launcher_runs(services: dict[str, Any]) -> None:
    assert services["rabbitmq"]["image"] == container.IMAGE


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_reads_the_variables_it_is_given_and_listens_where_others_connect(
    services: dict[str, Any], service: Service
) -> None:
    configured = services[service.name]
    settings = import_module(f"{service.name}.settings").Settings
    readable = _variables(settings) | _variables_of_commands(service)
    assert configured["environment"].keys() <= readable
    port = settings.model_fields[service.port_variable.lower()].default
    assert str(port) in " ".join(configured["healthcheck"]["test"])
    if service is GATEWAY:
        assert configured["ports"][0].endswith(f":{port}")
    if service.metrics_port:
        assert configured["environment"][service.metrics_variable] == service.metrics_port
    for other in services.values():
        address = other.get("environment", {}).get(service.address_variable)
        assert address in (None, f"{service.name}:{port}")


def _variables(settings: type[ServiceSettings]) -> set[str]:
    return {name.upper() for name in settings.model_fields}


def _variables_of_commands(service: Service) -> set[str]:
    """What the commands read that people run in the service's container."""
    if find_spec(f"{service.name}.cli") is None:
        return set()
    import_module(f"{service.name}.cli")
    own = [
        each for each in _subclasses(ServiceSettings) if each.__module__.startswith(service.name)
    ]
    return set[str]().union(*map(_variables, own))


def _subclasses(cls: type[ServiceSettings]) -> list[type[ServiceSettings]]:
    return [each for child in cls.__subclasses__() for each in (child, *_subclasses(child))]


def test_the_order_services_container_can_show_the_dead_letters_of_an_order(
    services: dict[str, Any],
) -> None:
    order_service = next(service for service in SERVICES if service.name == "order_service")
    assert "RABBITMQ_URL" in services["order_service"]["environment"]
    assert "RABBITMQ_URL" in _variables_of_commands(order_service)
