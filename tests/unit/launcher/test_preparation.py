"""What the launcher computes and checks before it starts anything."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from launcher import ports, startup
from launcher.environment import secrets
from launcher.environment.files import read_env_file, write_env_file
from launcher.environment.validation import invalid_variables
from launcher.environment.variables import complete
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.rabbitmq.endpoint import Endpoint
from launcher.services import SERVICES
from launcher.supervisor.log_files import last_lines
from launcher.supervisor.programs import Program, write_configuration


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "checkout", tmp_path / "run")
    layout.create()
    return layout


def test_missing_variables_get_defaults_and_given_ones_are_kept(layout: Layout) -> None:
    given = {"ORDER_SERVICE_PORT": "7001", "USER_SERVICE_ADDR": "elsewhere:9", "LOG_LEVEL": ""}
    completed = complete(layout, given)
    assert completed["ORDER_SERVICE_ADDR"] == "localhost:7001"
    assert completed["USER_SERVICE_ADDR"] == "elsewhere:9"
    assert completed["INVENTORY_SERVICE_ADDR"] == "localhost:50055"
    assert completed["RUN_DIR"] == str(layout.run_dir)
    assert "LOG_LEVEL" not in completed


def test_secrets_are_stored_privately_and_given_ones_take_precedence(layout: Layout) -> None:
    first = complete(layout, {})
    secrets.store(layout, first)
    again = complete(layout, {"ADMIN_PASSWORD": "my own"})
    secrets.store(layout, again)
    assert len(first["JWT_SECRET"].encode()) >= 32
    assert again["JWT_SECRET"] == first["JWT_SECRET"]
    assert again["ADMIN_PASSWORD"] == "my own"
    # The administrator was created with the generated password, which stays valid.
    assert "my own" not in layout.secrets_file.read_text()
    assert stat.S_IMODE(layout.secrets_file.stat().st_mode) == 0o600


def test_later_starts_use_the_administrator_of_the_first(layout: Layout) -> None:
    given = {"ADMIN_EMAIL": "me@example.com", "ADMIN_PASSWORD": "it's my own"}
    secrets.store(layout, complete(layout, given))
    assert given.items() <= read_env_file(layout.secrets_file).items()
    assert given.items() <= complete(layout, {}).items()


@pytest.mark.parametrize("value", ["plain", "two words", "it's", 'a "quote"', "$HOME `id` \\ #%"])
def test_a_shell_and_python_read_the_same_from_an_environment_file(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "some.env"
    write_env_file(path, {"A": "first", "B": value})
    shell = subprocess.run(
        ["sh", "-c", '. "$1"; printf %s "$B"', "sh", path], capture_output=True, check=True
    )
    assert shell.stdout.decode() == value
    assert read_env_file(path) == {"A": "first", "B": value}


def test_all_invalid_variables_are_reported_at_once_before_anything_is_installed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "API_GATEWAY_PORT": "http",
        "USER_SERVICE_PORT": "50055",
        "ORDER_DATABASE_URL": "sqlite:///orders",
        "RABBITMQ_URL": "localhost:5672",
        "RABBITMQ_MANAGEMENT_PORT": "65536",
        "LOG_LEVEL": "LOUD",
        "LOGIN_RATE": "often",
        "ADMIN_PASSWORD": "short",
    }
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(startup, "choose_broker", lambda *_: pytest.fail("a broker was chosen"))
    own_checkout = Layout(Path(startup.__file__).parents[1], layout.run_dir)
    with pytest.raises(LauncherError) as raised:
        startup.start(own_checkout, Console(), SERVICES, detach=False)
    title, *lines = str(raised.value).splitlines()
    assert title == "settings are missing or invalid:"
    assert len(lines) == len(given)
    for variable in (*given, "INVENTORY_SERVICE_PORT"):
        assert variable in "\n".join(lines)
    assert not layout.secrets_file.exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RABBITMQ_MANAGEMENT_PORT", "0"),
        ("RABBITMQ_MANAGEMENT_PORT", "65536"),
        ("RABBITMQ_MANAGEMENT_PORT", "\N{SUPERSCRIPT TWO}"),
        ("RABBITMQ_URL", "http://localhost/"),
        ("RABBITMQ_URL", "amqp://localhost:65536/"),
        ("RABBITMQ_URL", "amqp://localhost:0/"),
        ("RABBITMQ_URL", "amqp://[::1/"),
    ],
)
def test_an_invalid_broker_address_is_reported(layout: Layout, variable: str, value: str) -> None:
    completed = complete(layout, {"CONSUMER_SERVICE_PORT": "50056", variable: value})
    assert list(invalid_variables(completed)) == [variable]


def test_a_port_in_use_is_reported_with_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(LauncherError, match=rf"{port}.*ORDER_SERVICE_PORT"):
            ports.require_free(port, "127.0.0.1", "ORDER_SERVICE_PORT")
    assert ports.is_free(port)


@pytest.mark.parametrize(
    ("variable", "port"),
    [
        ("CONSUMER_SERVICE_PORT", 50056),
        ("INVENTORY_SERVICE_METRICS_PORT", 50065),
        ("ORDER_SERVICE_METRICS_PORT", 50061),
    ],
)
def test_a_port_that_no_client_needs_to_know_changes_if_the_default_is_in_use(
    layout: Layout, variable: str, port: int
) -> None:
    default = complete(layout, {})[variable]
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
            server.listen()
        except OSError:
            assert default != str(port)
            return
        assert complete(layout, {})[variable] != str(port)


def test_metrics_can_be_switched_off_and_their_ports_are_checked_like_others(
    layout: Layout,
) -> None:
    off = {"INVENTORY_SERVICE_METRICS_PORT": "0", "ORDER_SERVICE_METRICS_PORT": "0"}
    assert complete(layout, off).items() >= off.items()
    wrong = {"INVENTORY_SERVICE_METRICS_PORT": "many", "ORDER_SERVICE_METRICS_PORT": "8080"}
    assert invalid_variables(complete(layout, wrong)).keys() == wrong.keys()


@pytest.mark.parametrize(
    ("bind_host", "address"),
    [
        ("127.0.0.1", "localhost:50051"),
        ("0.0.0.0", "localhost:50051"),
        ("::", "localhost:50051"),
        ("192.0.2.7", "192.0.2.7:50051"),
        ("2001:db8::7", "[2001:db8::7]:50051"),
    ],
)
def test_dependencies_are_reached_where_they_listen(
    layout: Layout, bind_host: str, address: str
) -> None:
    completed = complete(layout, {"BIND_HOST": bind_host, "CONSUMER_SERVICE_PORT": "50056"})
    assert completed["ORDER_SERVICE_ADDR"] == address


def test_a_broker_url_is_parsed_with_defaults_and_escapes() -> None:
    default = Endpoint.from_environment({"RABBITMQ_URL": "amqp://localhost"})
    login = (default.user, default.password)
    assert (default.port, *login, default.vhost) == (5672, "guest", "guest", "/")
    assert default.management_url == "http://localhost:15672/"
    assert default.is_local()
    custom = Endpoint.from_environment(
        {
            "RABBITMQ_URL": "amqp://me:p%40ss@127.0.0.1:5700/my%2Fshop",
            "RABBITMQ_MANAGEMENT_PORT": "99",
        }
    )
    assert (custom.password, custom.vhost, custom.management_port) == ("p@ss", "my/shop", 99)
    assert not Endpoint.from_environment({"RABBITMQ_URL": "amqp://192.0.2.7/"}).is_local()


def test_a_high_amqp_port_still_has_a_management_port() -> None:
    endpoint = Endpoint.from_environment({"RABBITMQ_URL": "amqp://localhost:60000/"})
    assert 0 < endpoint.management_port < 65536


def test_a_program_gets_its_environment_and_folder_with_any_characters(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "it's 100% #1; $(mine)"
    folder.mkdir()
    program = Program(
        "some", ["sh", "-c", 'pwd; printf %s "$TEXT"'], folder, {"TEXT": 'a "b" $c\n;d'}
    )
    shell = subprocess.run(["sh"], input=program.script().encode(), capture_output=True, check=True)
    assert shell.stdout.decode() == f'{folder}\na "b" $c\n;d'


def test_sockets_of_a_deep_run_directory_are_in_a_folder_with_a_short_path(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / ("deep" * 30) / "run")
    layout.create()
    try:
        assert len(os.fsencode(layout.sockets)) < 80
        configuration = write_configuration(layout, ()).read_text()
        assert f"\nfile={layout.sockets}/supervisord.sock\n" in configuration
        assert stat.S_IMODE(layout.sockets.stat().st_mode) == 0o700
        layout.create()
    finally:
        layout.remove_sockets()
    assert not layout.sockets.exists()


def test_a_socket_folder_that_others_can_access_is_rejected(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / "run")
    layout.create()
    layout.sockets.chmod(0o755)
    with pytest.raises(LauncherError, match="not private"):
        layout.create()


def test_the_last_lines_of_a_log_are_read(tmp_path: Path) -> None:
    path = tmp_path / "some.log"
    assert last_lines(path, 3) == []
    path.write_text("".join(f"{number}\n" for number in range(100_000)))
    assert last_lines(path, 3) == ["99997", "99998", "99999"]
