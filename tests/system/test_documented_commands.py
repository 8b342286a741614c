"""The commands in the documentation work."""

import json
import re
import subprocess

from tests.support.documented_commands import commands
from tests.support.system import System


def run(marker: str, system: System) -> str:
    """The output of the commands after this marker, which succeed without errors."""
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands(marker)],
        env={
            **system.environment,
            "GATEWAY": system.gateway_url,
            "MANAGEMENT": system.exported_environment["RABBITMQ_MANAGEMENT_URL"].rstrip("/"),
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    return completed.stdout


def test_the_documented_first_order_is_confirmed(system: System) -> None:
    output = run("first-order", system)
    assert '"status": "CONFIRMED"' in output
    assert re.search(r"^order\.created \{.*\}$", output, re.MULTILINE)
    assert re.search(r"^order\.confirmed \{.*\}$", output, re.MULTILINE)


def test_the_documented_administrator_adds_a_product(
    system: System,
) -> None:
    assert json.loads(run("administrator", system))["name"] == "Notebook"
