"""Which RabbitMQ the launcher takes, in the order that users are promised."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher import broker, docker_broker, packages, rabbitmq_node
from launcher.broker import Broker
from launcher.layout import Layout
from launcher.problem import Problem
from tests.support.ports import free_port


@dataclass
class Machine:
    """What the machine has, and what was done to it."""

    answering: set[str] = field(default_factory=set)
    installed: bool = False
    docker: bool = False
    package: Callable[["Machine"], None] | None = None
    said: list[str] = field(default_factory=list)
    url: str = field(default_factory=lambda: f"amqp://me:secret@localhost:{free_port()}/")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "checkout", tmp_path / "run")
    made.create()
    return made


@pytest.fixture
def choose(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Broker]:
    def chosen(machine: Machine) -> Broker:
        def install(_package: str, say: Callable[[str], None]) -> None:
            if machine.package is None:
                raise Problem("nothing may be installed")
            say("installing")
            machine.package(machine)

        def complaint(url: str) -> str:
            return "" if url in machine.answering else "refused"

        script = Path("/somewhere/rabbitmq-server")
        monkeypatch.setattr(broker, "complaint_of", complaint)
        monkeypatch.setattr(broker, "_listens", lambda endpoint: endpoint.url in machine.answering)
        monkeypatch.setattr(
            rabbitmq_node, "find_script", lambda: script if machine.installed else None
        )
        monkeypatch.setattr(docker_broker, "engine_answers", lambda: machine.docker)
        monkeypatch.setattr(packages, "install", install)
        monkeypatch.setattr(packages, "enable_management_page", lambda: None)
        environment = {
            "RABBITMQ_URL": machine.url,
            "RABBITMQ_MANAGEMENT_PORT": str(free_port()),
        }
        return broker.choose(layout, environment, machine.said.append)

    return chosen


def test_the_one_that_answers_is_used_and_not_run(choose: Callable[[Machine], Broker]) -> None:
    machine = Machine(installed=True, docker=True)
    machine.answering.add(machine.url)
    assert choose(machine).program is None


def test_an_installed_server_comes_before_docker(choose: Callable[[Machine], Broker]) -> None:
    chosen = choose(Machine(installed=True, docker=True))
    assert chosen.program
    assert chosen.program.command == ["/somewhere/rabbitmq-server"]


def test_docker_comes_before_a_package(choose: Callable[[Machine], Broker]) -> None:
    machine = Machine(docker=True)
    chosen = choose(machine)
    assert chosen.program
    command = " ".join(chosen.program.command)
    assert f"127.0.0.1:{chosen.endpoint.port}:5672" in command
    assert "secret" not in command
    assert machine.said == []


def test_a_package_is_the_last_resort_and_is_told(choose: Callable[[Machine], Broker]) -> None:
    machine = Machine(package=lambda machine: setattr(machine, "installed", True))
    chosen = choose(machine)
    assert chosen.origin == "private node"
    assert machine.said == ["installing"]


def test_a_server_that_its_package_has_started_is_used(choose: Callable[[Machine], Broker]) -> None:
    chosen = choose(Machine(package=lambda machine: machine.answering.add(machine.url)))
    assert chosen.program is None


def test_tls_on_this_machine_is_not_ours_to_run(choose: Callable[[Machine], Broker]) -> None:
    with pytest.raises(Problem, match="does not answer"):
        choose(Machine(installed=True, url="amqps://me:secret@localhost/"))


def test_only_root_is_given_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Problem, match="install rabbitmq-server"):
        packages.install("rabbitmq-server", print)


def test_an_installation_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(Problem, match="apt-get update took more than"):
        packages.install("rabbitmq-server", print)


def test_a_failing_installation_tells_what_apt_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    said = "Reading lists\nE: no space left\n"
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 100, stdout=said),
    )
    with pytest.raises(Problem, match="could not install rabbitmq-server: E: no space left"):
        packages.install("rabbitmq-server", print)


@pytest.mark.parametrize(("cores", "schedulers"), [(1, "+S 1:1"), (2, "+S 1:1"), (8, "+S 4:4")])
def test_a_private_node_leaves_half_of_the_cores_to_the_services(
    choose: Callable[[Machine], Broker],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    schedulers: str,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    program = choose(Machine(installed=True)).program
    assert program is not None
    assert program.environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"].endswith(schedulers)
