"""Which RabbitMQ the launcher chooses, in the documented order."""

import fcntl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher import apt
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.rabbitmq import container, package, private_node, probe
from launcher.rabbitmq.broker import Broker, choose_broker
from tests.support.ports import free_port

SCRIPT = Path("/somewhere/rabbitmq-server")


@dataclass
class Machine:
    """What the machine has, and what was done to it."""

    running: set[str] = field(default_factory=set)
    installed: bool = False
    docker: bool = False
    install_package: Callable[["Machine"], None] | None = None
    notices: list[str] = field(default_factory=list)
    url: str = field(default_factory=lambda: f"amqp://me:secret@localhost:{free_port()}/")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "checkout", tmp_path / "run")
    layout.create()
    return layout


@pytest.fixture
def choose(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Broker]:
    def choose_on(machine: Machine) -> Broker:
        def install(notify: Callable[[str], None]) -> None:
            if machine.install_package is None:
                raise LauncherError("nothing can be installed")
            notify("installing")
            machine.install_package(machine)

        def connection_error(url: str) -> str | None:
            return None if url in machine.running else "refused"

        monkeypatch.setattr(probe, "connection_error", connection_error)
        monkeypatch.setattr(probe, "is_listening", lambda endpoint: endpoint.url in machine.running)
        monkeypatch.setattr(
            private_node, "find_script", lambda: SCRIPT if machine.installed else None
        )
        monkeypatch.setattr(container, "engine_available", lambda: machine.docker)
        monkeypatch.setattr(package, "install", install)
        monkeypatch.setattr(package, "enable_management_page", lambda: None)
        environment = {
            "RABBITMQ_URL": machine.url,
            "RABBITMQ_MANAGEMENT_PORT": str(free_port()),
        }
        return choose_broker(layout, environment, machine.notices.append)

    return choose_on


def test_a_running_broker_is_used_and_not_started(choose: Callable[[Machine], Broker]) -> None:
    machine = Machine(installed=True, docker=True)
    machine.running.add(machine.url)
    assert choose(machine).program is None


def test_an_installed_server_takes_precedence_over_docker(
    choose: Callable[[Machine], Broker],
) -> None:
    broker = choose(Machine(installed=True, docker=True))
    assert broker.program
    assert broker.program.command == [str(SCRIPT)]


def test_docker_takes_precedence_over_a_package(choose: Callable[[Machine], Broker]) -> None:
    machine = Machine(docker=True)
    broker = choose(machine)
    assert broker.program
    command = " ".join(broker.program.command)
    assert f"127.0.0.1:{broker.endpoint.port}:5672" in command
    assert "secret" not in command
    assert machine.notices == []


def test_a_package_is_the_last_resort_and_is_announced(choose: Callable[[Machine], Broker]) -> None:
    machine = Machine(install_package=lambda machine: setattr(machine, "installed", True))
    broker = choose(machine)
    assert broker.origin == "private node"
    assert machine.notices == ["installing"]


def test_a_server_that_its_package_has_started_is_used(choose: Callable[[Machine], Broker]) -> None:
    broker = choose(Machine(install_package=lambda machine: machine.running.add(machine.url)))
    assert broker.program is None


def test_a_local_broker_with_tls_is_not_started(choose: Callable[[Machine], Broker]) -> None:
    with pytest.raises(LauncherError, match="is unavailable"):
        choose(Machine(installed=True, url="amqps://me:secret@localhost/"))


def test_a_package_that_is_being_installed_is_waited_for_before_its_files_are_used(
    choose: Callable[[Machine], Broker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "apt-get"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(apt, "PAUSE_SECONDS", 0.01)
    machine = Machine()

    def finish_installation() -> None:
        time.sleep(0.2)
        machine.installed = True
        fcntl.flock(lock, fcntl.LOCK_UN)

    with program.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installation = threading.Thread(target=finish_installation)
        installation.start()
        broker = choose(machine)
        installation.join()
    assert broker.program
    assert broker.program.command == [str(SCRIPT)]
    assert machine.notices == ["Waiting for another process that installs a package"]


def test_without_root_the_error_says_which_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apt, "can_install", lambda: False)
    with pytest.raises(LauncherError, match="install rabbitmq-server"):
        package.install(print)


def test_only_root_on_a_distribution_with_apt_can_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert not apt.can_install()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert apt.can_install()
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not apt.can_install()


@pytest.mark.parametrize(("cores", "schedulers"), [(1, "+S 1:1"), (2, "+S 1:1"), (8, "+S 4:4")])
def test_a_private_node_uses_half_of_the_cores(
    choose: Callable[[Machine], Broker],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    schedulers: str,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    program = choose(Machine(installed=True)).program
    assert program is not None
    assert program.environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"].endswith(schedulers)
