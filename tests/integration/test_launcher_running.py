"""`start-services.sh` as users run it: starting, crashes, stopping, and its messages."""

import asyncio
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from launcher.environment.files import read_env_file
from launcher.supervisor import processes
from service_kit.errors import Unavailable
from service_kit.rabbitmq.connection import open_connection
from tests.support.infrastructure import CHECKOUT, START
from tests.support.ports import free_port
from tests.support.waiting import eventually

FOLDER_NAME = "it's 100% mine; #1"


class Runner:
    """The script with a run directory and ports of its own."""

    def __init__(self, run_dir: Path, start: Sequence[str] = (START,), **variables: str) -> None:
        self.run_dir = run_dir
        self.start = start
        amqp = f"amqp://guest:guest@localhost:{free_port()}/"
        placed = {
            "RUN_DIR": str(run_dir),
            "RABBITMQ_URL": amqp,
            "RABBITMQ_MANAGEMENT_PORT": str(free_port()),
        }
        unset = {"USER_DATABASE_URL", "INVENTORY_DATABASE_URL", "ORDER_DATABASE_URL"}
        inherited = {name: value for name, value in os.environ.items() if name not in unset}
        self.environment = {**inherited, **placed, **variables}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.start, *arguments],
            env=self.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def status(self) -> dict[str, tuple[str, int]]:
        """Each program's state and pid, as `status` prints them."""
        lines = re.findall(r"^(\w+) +([A-Z]+) +pid (\d+)", self("status").stdout, re.MULTILINE)
        return {name: (state, int(pid)) for name, state, pid in lines}

    def kill(self, name: str) -> int:
        """Crash a program; return the pid it had."""
        _, pid = self.status()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    async def restarted(self, name: str, killed: int) -> None:
        """Return once `name` runs again, as another process."""

        async def state() -> tuple[str, int]:
            return self.status().get(name, ("", 0))

        await eventually(state, lambda now: now[0] == "RUNNING" and now[1] != killed, within=30)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """PostgreSQL and RabbitMQ in a folder that other users cannot enter, with a difficult name."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    runner = Runner(closed / FOLDER_NAME)
    started = runner("--infra-only", "--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    yield runner
    assert runner("stop").returncode == 0
    assert processes.find(runner.run_dir) == []
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_status_prints_every_program_with_its_state_and_pid(running: Runner) -> None:
    assert running("status").returncode == 0
    states = running.status()
    assert list(states) == ["postgres", "rabbitmq"]
    for state, pid in states.values():
        assert state == "RUNNING"
        os.kill(pid, 0)


def test_the_addresses_of_the_infrastructure_are_private(running: Runner) -> None:
    path = running.run_dir / "environment.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    urls = read_env_file(path)
    assert urls["RABBITMQ_URL"] == running.environment["RABBITMQ_URL"]
    assert {"USER_DATABASE_URL", "INVENTORY_DATABASE_URL", "ORDER_DATABASE_URL"} <= urls.keys()


def test_a_second_start_is_rejected_and_changes_nothing(running: Runner) -> None:
    before = running.status()
    second = running("--infra-only", "--detach")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert running.status() == before


async def test_a_killed_database_is_restarted_with_its_rows(running: Runner) -> None:
    url = read_env_file(running.run_dir / "environment.env")["ORDER_DATABASE_URL"]
    dsn = url.replace("+asyncpg", "")
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.execute("CREATE TABLE kept (id int)")
    await connection.execute("INSERT INTO kept VALUES (7)")
    killed = running.kill("postgres")
    await running.restarted("postgres", killed)
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT id FROM kept") == 7
    await connection.close()


async def test_a_killed_broker_is_restarted_with_its_messages(running: Runner) -> None:
    url = running.environment["RABBITMQ_URL"]
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(b"still here", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key="kept")
    await eventually(lambda: _quorum_queues_are_on_disk(running.run_dir))
    killed = running.kill("rabbitmq")
    await running.restarted("rabbitmq", killed)

    async def body() -> bytes:
        try:
            async with open_connection(url, "test of kept messages") as connection:
                queue = await (await connection.channel()).get_queue("kept")
                found = await queue.get()
                await found.ack()
                return found.body
        except Unavailable as error:
            return repr(error).encode()

    await eventually(body, lambda found: found == b"still here", within=60)


async def _quorum_queues_are_on_disk(run_dir: Path) -> bool:
    """RabbitMQ 3.10 writes a new quorum queue's name half a second after it has confirmed it."""
    names = next((run_dir / "rabbitmq/mnesia").glob("*/quorum/*/names.dets"))
    return time.time() - names.stat().st_mtime > 2


def test_logs_are_shown_by_service(running: Runner) -> None:
    shown = running("logs", "postgres", "-n", "1")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) == 1
    assert "postgres " in running("logs").stdout
    unknown = running("logs", "no_such_service")
    assert unknown.returncode == 1
    assert "no_such_service" in unknown.stderr


async def test_logs_are_followed_through_a_rotation(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "run")
    logs = runner.run_dir / "logs"
    logs.mkdir(parents=True)
    log, shown = logs / "postgres.log", tmp_path / "shown"
    log.write_text("long ago\nlast\n")

    async def append(line: str) -> str:
        # Repeated, because lines from before it follows the file are not shown.
        with log.open("a") as file:
            file.write(f"{line}\n")
        return shown.read_text()

    with shown.open("wb") as output:
        following = await asyncio.create_subprocess_exec(
            *(START, "logs", "postgres", "-n", "1", "-f"), env=runner.environment, stdout=output
        )
    try:
        # One may be the last line at the start; the second one was followed.
        await eventually(lambda: append("new"), lambda text: text.count("new\n") > 1, within=30)
        log.rename(logs / "postgres.log.1")
        await eventually(lambda: append("newer"), lambda text: "newer\n" in text)
    finally:
        following.terminate()
        await following.wait()


def test_processes_of_a_killed_supervisor_are_stopped_by_the_next_start(running: Runner) -> None:
    supervisor = int((running.run_dir / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    status = running("status")
    assert status.returncode == 3
    assert "Nothing is running" in status.stdout
    assert processes.find(running.run_dir)
    again = running("--infra-only", "--detach")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "left behind by an earlier run: rabbitmq, postgres" in again.stdout
    assert running("status").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_run_it_from_a_path_with_spaces(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    checkout = tmp_path / "my own shop"
    excluded = shutil.ignore_patterns(".*", "__pycache__", "tests", "benchmarks")
    shutil.copytree(CHECKOUT, checkout, ignore=excluded)
    (checkout / ".venv").symlink_to(CHECKOUT / ".venv")
    shutil.chown(checkout, nobody.pw_uid, nobody.pw_gid)
    runner = Runner(checkout / ".run", start=(*_as(nobody), str(checkout / "start-services.sh")))
    try:
        started = runner("--infra-only", "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        running = processes.find(runner.run_dir)
        assert {process.uids().real for process in running} == {nobody.pw_uid}
        assert list(runner.status()) == ["postgres", "rabbitmq"]
    finally:
        stopped = runner("stop")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert processes.find(runner.run_dir) == []


def _as(user: pwd.struct_passwd) -> tuple[str, ...]:
    """What to put before a command so that it runs as `user`, who can also read root's folders.

    The folders of the tests and of their Python may be closed to other users.
    """
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    capability = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    return ("setpriv", *identity, *capability, "--securebits=+no_setuid_fixup")


def test_stop_succeeds_if_nothing_runs(tmp_path: Path) -> None:
    stopped = Runner(tmp_path / "run")("stop")
    assert stopped.returncode == 0
    assert "Nothing was running" in stopped.stdout


@pytest.mark.parametrize("after", ["", "postgres is healthy"])
def test_an_interrupted_start_leaves_no_process(tmp_path: Path, after: str) -> None:
    runner = Runner(tmp_path / "run")
    with subprocess.Popen(
        [START, "--infra-only"],
        env=runner.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as starting:
        assert starting.stdout
        while not (runner.run_dir / "programs").exists():
            assert starting.poll() is None
        while after and after not in starting.stdout.readline():
            assert starting.poll() is None
        starting.send_signal(signal.SIGTERM)
        starting.communicate(timeout=60)
    assert starting.returncode == 128 + signal.SIGTERM
    assert processes.find(runner.run_dir) == []


def test_a_broker_port_in_use_by_another_program_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        responding = threading.Thread(target=_respond_http, args=(server,), daemon=True)
        responding.start()
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        result = Runner(tmp_path / "run", RABBITMQ_URL=url)("--infra-only")
        server.shutdown(socket.SHUT_RDWR)
        responding.join(timeout=5)
    _is_one_clear_line(result, str(port), "RABBITMQ_URL")
    assert processes.find(tmp_path / "run") == []


def test_a_service_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        runner = Runner(tmp_path / "run", USER_SERVICE_PORT=port)
        _is_one_clear_line(runner(), port, "USER_SERVICE_PORT")


def test_an_unavailable_broker_on_another_machine_is_one_clear_line(tmp_path: Path) -> None:
    url = "amqp://guest:guest@broker.invalid:5672/"
    result = Runner(tmp_path / "run", RABBITMQ_URL=url)("--infra-only")
    _is_one_clear_line(result, "broker.invalid", "RABBITMQ_URL")


def test_an_unavailable_database_is_one_clear_line(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://shop:secret@127.0.0.1:{free_port()}/orders"
    result = Runner(tmp_path / "run", ORDER_DATABASE_URL=url)("--infra-only")
    _is_one_clear_line(result, "ORDER_DATABASE_URL")
    assert "secret" not in result.stderr


def _respond_http(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _is_one_clear_line(result: subprocess.CompletedProcess[str], *names: str) -> None:
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    for name in names:
        assert name in result.stderr
