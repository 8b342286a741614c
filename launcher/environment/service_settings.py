"""Validates services' settings: `python -m launcher.environment.service_settings SERVICE…`.

In a process of its own, because settings are read from the environment of the process.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.services import Service
from service_kit.settings import SettingsError, load

_TIMEOUT_SECONDS = 60


def invalid_variables(
    layout: Layout, services: Sequence[Service], environment: Mapping[str, str]
) -> dict[str, str]:
    """What is wrong with each variable that any of `services` rejects."""
    try:
        completed = subprocess.run(
            [sys.executable, "-m", __name__, *(service.name for service in services)],
            cwd=layout.checkout,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LauncherError(f"reading the settings took over {_TIMEOUT_SECONDS} s") from error
    if completed.returncode != 0:
        raise LauncherError(f"the settings cannot be read:\n{completed.stderr.rstrip()}")
    return dict(line.split(": ", 1) for line in completed.stdout.splitlines())


def _error_lines(services: Sequence[str]) -> list[str]:
    """One line for each invalid variable, even if several services read it."""
    lines = dict[str, str]()
    for service in services:
        try:
            load(import_module(f"{service}.settings").Settings)
        except SettingsError as error:
            lines |= {line.split(":")[0]: line for line in str(error).splitlines()}
    return list(lines.values())


if __name__ == "__main__":
    for line in _error_lines(sys.argv[1:]):
        sys.stdout.write(f"{line}\n")
