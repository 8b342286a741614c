"""compose.yaml: valid, complete, and without a secret of its own."""

import os
import re
import stat
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from order_service.tools import TraceSettings
from ruamel.yaml import YAML

from launcher import docker_broker
from launcher.layout import GATEWAY, SERVICES, Service
from tests.support.readme import commands

READERS = {"order_service": TraceSettings}
"""What reads more of a container's environment than its service: a tool that is run in it."""
COMPOSE = Path(__file__).parents[2] / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(COMPOSE)["services"])


def test_it_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, COMPOSE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_what_the_launcher_runs(services: dict[str, Any]) -> None:
    assert services.keys() == {"postgres", "rabbitmq", *(service.name for service in SERVICES)}


def test_every_service_waits_for_healthy_neighbours(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, (name, needed)


def test_secrets_have_no_default() -> None:
    text = COMPOSE.read_text()
    for secret in ("JWT_SECRET", "ADMIN_PASSWORD", "POSTGRES_PASSWORD", "RABBITMQ_PASSWORD"):
        uses = re.findall(rf"\$\{{{secret}([^}}]*)\}}", text)
        assert uses, secret
        assert set(uses) == {":?"}, secret


def test_the_readmes_secrets_are_all_it_asks_for_and_private(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@"')
    docker.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands("compose")],
        cwd=tmp_path,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "compose --env-file .run/compose.env up --build --wait\n"
    made = tmp_path / ".run" / "compose.env"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    given = dict(line.split("=") for line in made.read_text().splitlines())
    assert given.keys() == set(re.findall(r"\$\{(\w+):\?\}", COMPOSE.read_text()))
    assert all(re.fullmatch(r"[0-9a-zA-Z]{32,}", secret) for secret in given.values())


def test_its_broker_is_the_one_that_the_launcher_runs_in_docker(services: dict[str, Any]) -> None:
    assert services["rabbitmq"]["image"] == docker_broker.IMAGE


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_knows_the_variables_it_is_given_and_listens_where_it_is_looked_for(
    services: dict[str, Any], service: Service
) -> None:
    configured = services[service.name]
    settings = READERS.get(service.name) or import_module(f"{service.name}.settings").Settings
    known = {name.upper() for name in settings.model_fields}
    assert configured["environment"].keys() <= known
    port = settings.model_fields[service.port_variable.lower()].default
    assert str(port) in " ".join(configured["healthcheck"]["test"])
    if service is GATEWAY:
        assert configured["ports"][0].endswith(f":{port}")
    if service.metrics_port:
        assert configured["environment"][service.metrics_variable] == service.metrics_port
    for other in services.values():
        address = other.get("environment", {}).get(service.address_variable)
        assert address in (None, f"{service.name}:{port}")
