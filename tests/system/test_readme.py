"""The README's examples do what they say."""

import json
import re
import subprocess

from tests.support.readme import commands
from tests.support.system import System


def run(marker: str, system: System) -> str:
    """What the commands behind this marker say; they succeed and complain of nothing."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands(marker)],
        env={
            **system.environment,
            "GATEWAY": system.gateway_url,
            "MANAGEMENT": system.told["RABBITMQ_MANAGEMENT_URL"].rstrip("/"),
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_first_order_of_the_readme_is_confirmed(system: System) -> None:
    said = run("first-order", system)
    assert '"status": "CONFIRMED"' in said
    assert re.search(r"^order\.created \{.*\}$", said, re.MULTILINE)
    assert re.search(r"^order\.confirmed \{.*\}$", said, re.MULTILINE)


def test_the_administrator_chosen_before_the_first_start_adds_the_product_of_the_readme(
    system: System,
) -> None:
    assert json.loads(run("administrator", system))["name"] == "Notebook"
