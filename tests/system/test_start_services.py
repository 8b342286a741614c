"""`start-services.sh` with all services; `test_launcher_running.py` tests it without them."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from launcher.environment.files import read_env_file
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


def test_status_prints_a_line_per_program(system: System) -> None:
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


def test_logs_show_the_last_lines_of_one_program_or_of_all(system: System) -> None:
    (last,) = system.run("logs", "api_gateway", "-n", "1").stdout.splitlines()
    assert json.loads(last)["service"] == "api_gateway"
    shown = system.run("logs", "-n", "2").stdout.splitlines()
    assert {line.split("|")[0].strip() for line in shown} == set(PROGRAMS)


async def test_a_second_start_is_rejected_in_one_line(system: System) -> None:
    before = await system.states()
    done = system.run("--detach")
    assert done.returncode == 1
    assert re.fullmatch(r"error: already running in .*\n", done.stderr)
    assert await system.states() == before


def test_a_second_copy_on_the_same_ports_reports_the_port_and_leaves_no_process(
    system: System, tmp_path: Path
) -> None:
    second = System(tmp_path / "run", {**system.environment, "RUN_DIR": str(tmp_path / "run")})
    done = second.run("--detach")
    assert done.returncode == 1
    port = system.environment["USER_SERVICE_PORT"]
    expected = f"port {port} is in use by another program: stop it, or set USER_SERVICE_PORT"
    assert done.stderr == f"error: {expected}\n"
    assert second.processes() == []


@asynccontextmanager
async def _on_infrastructure_of(system: System, run_dir: Path) -> AsyncIterator[System]:
    """A system that is not started yet, with its databases and queues in those of `system`."""
    urls = read_env_file(system.run_dir / "environment.env")
    infrastructure = Infrastructure(
        urls["POSTGRES_ADMIN_URL"], urls["RABBITMQ_URL"], urls["RABBITMQ_MANAGEMENT_URL"]
    )
    async with (
        infrastructure.database() as users,
        infrastructure.database() as inventory,
        infrastructure.database() as orders,
        infrastructure.virtual_host() as broker,
    ):
        variables = {
            "USER_DATABASE_URL": users,
            "INVENTORY_DATABASE_URL": inventory,
            "ORDER_DATABASE_URL": orders,
            "RABBITMQ_URL": broker.url,
        }
        yield System(run_dir, free_environment(run_dir, **variables))


async def test_ctrl_c_stops_a_system_in_the_foreground_and_leaves_no_process(
    system: System, tmp_path: Path
) -> None:
    async with _on_infrastructure_of(system, tmp_path / "run") as second:
        starting = await asyncio.create_subprocess_exec(
            *(START, "--no-demo"),
            env=dict(second.environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert starting.stdout
        output = ""
        async with asyncio.timeout(60):
            while "Ctrl-C stops everything." not in output:
                line = await starting.stdout.readline()
                assert line, output
                output += line.decode()
        assert second.environment["ADMIN_PASSWORD"] not in output
        assert second.gateway_url.replace("127.0.0.1", "localhost") in output
        async with httpx.AsyncClient(base_url=second.gateway_url, trust_env=False) as client:
            assert (await client.get("/v1/products")).json()["products"] == []
            body = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
            assert (await client.post("/register", json=body)).status_code == 201
            for variable in ("INVENTORY_SERVICE_METRICS_PORT", "ORDER_SERVICE_METRICS_PORT"):
                page = f"http://localhost:{second.environment[variable]}/metrics"
                assert page in output
                assert "consistency_findings" in (await client.get(page)).text
        running = second.processes()
        assert len(running) >= 7  # the six services and their supervisor

        starting.send_signal(signal.SIGINT)

        rest, _ = await asyncio.wait_for(starting.communicate(), timeout=60)
        assert starting.returncode == 0
        assert rest.decode().splitlines()[-2:] == ["Stopping", "Stopped"]
        assert second.processes() == []
        assert not any(process.is_running() for process in running)
        assert second.run("status").returncode == 3
