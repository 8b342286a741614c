"""What the launcher works out before it starts anything."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from launcher import broker, environment, ports, startup
from launcher.endpoint import Endpoint
from launcher.layout import SERVICES, Layout
from launcher.logs import last_lines
from launcher.problem import Problem
from launcher.programs import Program, write_configuration


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "checkout", tmp_path / "run")
    made.create()
    return made


def test_gaps_are_filled_and_what_the_user_set_is_kept(layout: Layout) -> None:
    given = {"ORDER_SERVICE_PORT": "7001", "USER_SERVICE_ADDR": "elsewhere:9", "LOG_LEVEL": ""}
    completed = environment.complete(layout, given)
    assert completed["ORDER_SERVICE_ADDR"] == "localhost:7001"
    assert completed["USER_SERVICE_ADDR"] == "elsewhere:9"
    assert completed["INVENTORY_SERVICE_ADDR"] == "localhost:50055"
    assert completed["RUN_DIR"] == str(layout.run_dir)
    assert "LOG_LEVEL" not in completed


def test_secrets_are_kept_private_and_yield_to_the_users_own(layout: Layout) -> None:
    first = environment.complete(layout, {})
    environment.keep_secrets(layout, first)
    again = environment.complete(layout, {"ADMIN_PASSWORD": "my own"})
    environment.keep_secrets(layout, again)
    assert len(first["JWT_SECRET"].encode()) >= 32
    assert again["JWT_SECRET"] == first["JWT_SECRET"]
    assert again["ADMIN_PASSWORD"] == "my own"
    # The account was made with the generated one, and keeps it.
    assert "my own" not in layout.secrets_file.read_text()
    assert stat.S_IMODE(layout.secrets_file.stat().st_mode) == 0o600


def test_the_administrator_of_the_first_start_is_that_of_later_ones(layout: Layout) -> None:
    given = {"ADMIN_EMAIL": "me@example.com", "ADMIN_PASSWORD": "it's my own"}
    environment.keep_secrets(layout, environment.complete(layout, given))
    assert given.items() <= environment.read_env_file(layout.secrets_file).items()
    assert given.items() <= environment.complete(layout, {}).items()


@pytest.mark.parametrize("value", ["plain", "two words", "it's", 'a "quote"', "$HOME `id` \\ #%"])
def test_a_shell_and_python_read_the_same_from_an_environment_file(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "some.env"
    environment.write_env_file(path, {"A": "first", "B": value})
    shell = subprocess.run(
        ["sh", "-c", '. "$1"; printf %s "$B"', "sh", path], capture_output=True, check=True
    )
    assert shell.stdout.decode() == value
    assert environment.read_env_file(path) == {"A": "first", "B": value}


def test_all_wrong_variables_are_named_at_once_before_anything_is_installed(
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
    monkeypatch.setattr(broker, "choose", lambda *_: pytest.fail("a broker was chosen"))
    here = Layout(Path(startup.__file__).parents[1], layout.run_dir)
    with pytest.raises(Problem) as raised:
        startup.start(here, Console(), SERVICES, outlive_us=False)
    told = str(raised.value).splitlines()[1:]
    assert len(told) == len(given)
    for variable in (*given, "INVENTORY_SERVICE_PORT"):
        assert variable in "\n".join(told)
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
def test_a_wrong_place_for_the_broker_is_told(layout: Layout, variable: str, value: str) -> None:
    completed = environment.complete(layout, {"CONSUMER_SERVICE_PORT": "50056", variable: value})
    assert list(environment.complaints(completed)) == [variable]


def test_a_taken_port_is_reported_with_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(Problem, match=rf"{port}.*ORDER_SERVICE_PORT"):
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
def test_a_port_that_nobody_has_to_know_is_another_when_the_usual_one_is_taken(
    layout: Layout, variable: str, port: int
) -> None:
    usual = environment.complete(layout, {})[variable]
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
            server.listen()
        except OSError:
            assert usual != str(port)
            return
        assert environment.complete(layout, {})[variable] != str(port)


def test_metrics_can_be_switched_off_and_their_ports_are_checked_like_others(
    layout: Layout,
) -> None:
    off = {"INVENTORY_SERVICE_METRICS_PORT": "0", "ORDER_SERVICE_METRICS_PORT": "0"}
    assert environment.complete(layout, off).items() >= off.items()
    wrong = {"INVENTORY_SERVICE_METRICS_PORT": "many", "ORDER_SERVICE_METRICS_PORT": "8080"}
    assert environment.complaints(environment.complete(layout, wrong)).keys() == wrong.keys()


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
def test_neighbours_are_looked_for_where_they_listen(
    layout: Layout, bind_host: str, address: str
) -> None:
    completed = environment.complete(
        layout, {"BIND_HOST": bind_host, "CONSUMER_SERVICE_PORT": "50056"}
    )
    assert completed["ORDER_SERVICE_ADDR"] == address


def test_a_broker_url_is_read_with_its_defaults_and_escapes() -> None:
    usual = Endpoint.from_environment({"RABBITMQ_URL": "amqp://localhost"})
    assert (usual.port, usual.user, usual.password, usual.vhost) == (5672, "guest", "guest", "/")
    assert usual.management_url == "http://localhost:15672/"
    assert usual.is_local()
    own = Endpoint.from_environment(
        {
            "RABBITMQ_URL": "amqp://me:p%40ss@127.0.0.1:5700/my%2Fshop",
            "RABBITMQ_MANAGEMENT_PORT": "99",
        }
    )
    assert (own.password, own.vhost, own.management_port) == ("p@ss", "my/shop", 99)
    assert not Endpoint.from_environment({"RABBITMQ_URL": "amqp://192.0.2.7/"}).is_local()


def test_an_amqp_port_near_the_top_still_gets_a_management_port() -> None:
    endpoint = Endpoint.from_environment({"RABBITMQ_URL": "amqp://localhost:60000/"})
    assert 0 < endpoint.management_port < 65536


def test_a_program_gets_its_environment_and_folder_whatever_characters_they_have(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "it's 100% #1; $(mine)"
    folder.mkdir()
    program = Program(
        "some", ["sh", "-c", 'pwd; printf %s "$SAID"'], folder, {"SAID": 'a "b" $c\n;d'}
    )
    done = subprocess.run(["sh"], input=program.script().encode(), capture_output=True, check=True)
    assert done.stdout.decode() == f'{folder}\na "b" $c\n;d'


def test_sockets_of_a_deep_run_directory_go_where_their_paths_are_short(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / ("deep" * 30) / "run")
    layout.create()
    try:
        assert len(os.fsencode(layout.sockets)) < 80
        configured = write_configuration(layout, ()).read_text()
        assert f"\nfile={layout.sockets}/supervisord.sock\n" in configured
        assert stat.S_IMODE(layout.sockets.stat().st_mode) == 0o700
        layout.create()
    finally:
        layout.remove_sockets()
    assert not layout.sockets.exists()


def test_a_socket_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / "run")
    layout.create()
    layout.sockets.chmod(0o755)
    with pytest.raises(Problem, match="someone else"):
        layout.create()


def test_the_last_lines_of_a_log_are_its_last(tmp_path: Path) -> None:
    path = tmp_path / "some.log"
    assert last_lines(path, 3) == []
    path.write_text("".join(f"{number}\n" for number in range(100_000)))
    assert last_lines(path, 3) == ["99997", "99998", "99999"]
