"""Are the services' settings right? `python -m launcher.settings_check SERVICE…` tells.

In a process of its own, because settings are read from the process's environment.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from launcher.layout import Layout, Service
from launcher.problem import Problem
from service_kit.settings import SettingsError, load


def require_valid(
    layout: Layout, services: Sequence[Service], environment: Mapping[str, str]
) -> None:
    """Raise a Problem that names every variable which any of `services` would refuse."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, *(service.name for service in services)],
        cwd=layout.checkout,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Problem(f"settings are missing or wrong:\n{(done.stdout or done.stderr).rstrip()}")


def _complaints(services: Sequence[str]) -> list[str]:
    """A line for each fault, once, however many services share the variable."""
    complaints = list[str]()
    for service in services:
        try:
            load(import_module(f"{service}.settings").Settings)
        except SettingsError as error:
            complaints += str(error).splitlines()
    return list(dict.fromkeys(complaints))


if __name__ == "__main__":
    found = _complaints(sys.argv[1:])
    sys.stdout.write("".join(f"  {complaint}\n" for complaint in found))
    sys.exit(1 if found else 0)
