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

_SECONDS = 60


def complaints(
    layout: Layout, services: Sequence[Service], environment: Mapping[str, str]
) -> dict[str, str]:
    """What is wrong with each variable that any of `services` would refuse."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *(service.name for service in services)],
            cwd=layout.checkout,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Problem(f"reading the settings took more than {_SECONDS} s") from error
    if done.returncode != 0:
        raise Problem(f"the settings cannot be read:\n{done.stderr.rstrip()}")
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def _complaints(services: Sequence[str]) -> dict[str, str]:
    """A line for each faulty variable, once, however many services share it."""
    found = dict[str, str]()
    for service in services:
        try:
            load(import_module(f"{service}.settings").Settings)
        except SettingsError as error:
            found |= {line.split(":")[0]: line for line in str(error).splitlines()}
    return found


if __name__ == "__main__":
    for line in _complaints(sys.argv[1:]).values():
        sys.stdout.write(f"{line}\n")
