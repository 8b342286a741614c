"""The README's example does what it says."""

import re
import subprocess

from tests.support.infrastructure import CHECKOUT
from tests.support.system import System

MARKER = "<!-- first-order -->"


def test_the_first_order_of_the_readme_is_confirmed(system: System) -> None:
    readme = (CHECKOUT / "README.md").read_text()
    example = re.search(re.escape(MARKER) + r"\s*```bash\n(.*?)```", readme, re.DOTALL)
    assert example

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example[1]],
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
    assert '"status": "CONFIRMED"' in done.stdout
    assert re.search(r"^order\.created \{.*\}$", done.stdout, re.MULTILINE)
    assert re.search(r"^order\.confirmed \{.*\}$", done.stdout, re.MULTILINE)
