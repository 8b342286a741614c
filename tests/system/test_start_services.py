"""`start-services.sh` with everything it starts; what needs no services is tested elsewhere."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from tests.support.api_client import PASSWORD
from tests.support.infrastructure import START, Infrastructure
from tests.support.system import System, free_environment

PROGRAMS = [
    "postgres",
    "rabbitmq",
    "user_service",
    "inventory_service",
    "producer_service",
    "order_service",
    "consumer_service",
    "api_gateway",
]


def test_status_tells_a_line_for_each_program(system: System) -> None:
    done = system.run("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [
        re.fullmatch(r"(\w+) +RUNNING +pid (\d+), uptime \d+:\d\d:\d\d", line)
        for line in done.stdout.splitlines()
    ]
    found = {match[1]: int(match[2]) for match in lines if match}
    assert list(found) == PROGRAMS
    assert len(lines) == len(PROGRAMS)
    for name in PROGRAMS[2:]:
        assert psutil.Process(found[name]).cmdline()[-2:] == ["-m", name]


def test_logs_show_the_last_lines_of_one_or_of_all(system: System) -> None:
    (last,) = system.run("logs", "api_gateway", "-n", "1").stdout.splitlines()
    assert json.loads(last)["service"] == "api_gateway"
    shown = system.run("logs", "-n", "2").stdout.splitlines()
    assert {line.split("|")[0].strip() for line in shown} == set(PROGRAMS)


async def test_a_second_start_is_refused_in_one_line(system: System) -> None:
    before = await system.states()
    done = system.run("--detach")
    assert done.returncode == 1
    assert re.fullmatch(r"error: already running in .*\n", done.stderr)
    assert await system.states() == before


def test_a_second_copy_on_the_same_ports_says_which_and_leaves_nothing(
    system: System, tmp_path: Path
) -> None:
    second = System(tmp_path / "run", {**system.environment, "RUN_DIR": str(tmp_path / "run")})
    done = second.run("--detach")
    assert done.returncode == 1
    port = system.environment["USER_SERVICE_PORT"]
    wanted = f"error: port {port} is in use by another program: stop it, or set USER_SERVICE_PORT\n"
    assert done.stderr == wanted
    assert second.processes() == []


@asynccontextmanager
async def _elsewhere(system: System, run_dir: Path) -> AsyncIterator[System]:
    """A system yet to be started, on databases and a broker that somebody else runs."""
    told = system.exported_environment
    there = Infrastructure(
        told["POSTGRES_ADMIN_URL"], told["RABBITMQ_URL"], told["RABBITMQ_MANAGEMENT_URL"]
    )
    async with (
        there.database() as users,
        there.database() as inventory,
        there.database() as orders,
        there.virtual_host() as broker,
    ):
        urls = {
            "USER_DATABASE_URL": users,
            "INVENTORY_DATABASE_URL": inventory,
            "ORDER_DATABASE_URL": orders,
            "RABBITMQ_URL": broker.url,
        }
        yield System(run_dir, free_environment(run_dir, **urls))


async def test_ctrl_c_ends_a_system_in_the_foreground_and_leaves_no_process(
    system: System, tmp_path: Path
) -> None:
    async with _elsewhere(system, tmp_path / "run") as second:
        starting = await asyncio.create_subprocess_exec(
            *(START, "--no-demo"),
            env=dict(second.environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert starting.stdout
        said = ""
        async with asyncio.timeout(60):
            while "Ctrl-C stops everything." not in said:
                line = await starting.stdout.readline()
                assert line, said
                said += line.decode()
        assert second.environment["ADMIN_PASSWORD"] not in said
        assert second.gateway_url.replace("127.0.0.1", "localhost") in said
        async with httpx.AsyncClient(base_url=second.gateway_url, trust_env=False) as client:
            assert (await client.get("/v1/products")).json()["products"] == []
            body = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
            assert (await client.post("/register", json=body)).status_code == 201
            for variable in ("INVENTORY_SERVICE_METRICS_PORT", "ORDER_SERVICE_METRICS_PORT"):
                page = f"http://localhost:{second.environment[variable]}/metrics"
                assert page in said
                assert "audit_findings" in (await client.get(page)).text
        running = second.processes()
        assert len(running) >= 7  # the six services and their supervisor

        starting.send_signal(signal.SIGINT)

        rest, _ = await asyncio.wait_for(starting.communicate(), timeout=60)
        assert starting.returncode == 0
        assert rest.decode().splitlines()[-2:] == ["Stopping", "Stopped"]
        assert second.processes() == []
        assert not any(process.is_running() for process in running)
        assert second.run("status").returncode == 3
