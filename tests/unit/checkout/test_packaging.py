"""Which third-party packages are installed where: pyproject.toml, the lock files and the image."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.infrastructure import CHECKOUT

IMAGE = (
    "api_gateway",
    "user_service",
    "inventory_service",
    "order_service",
    "producer_service",
    "consumer_service",
    "service_kit",
    "proto",
)
"""The folders with what the services run."""
GENERATOR = CHECKOUT / "proto" / "generate.py"
"""Generates code for developers; no service imports it."""
LOCKS = ("requirements.lock", "requirements-local.lock", "requirements-dev.lock")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+) *(?:; *([^\\]+))?", re.MULTILINE)

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def normalized(name: str) -> str:
    """A package name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    """The packages that requirements name, without versions and extras."""
    return {normalized(re.split(r"[^A-Za-z0-9._-]", each)[0]) for each in requirements}


def pins(lock: str) -> set[tuple[str, str, str]]:
    """Name, version and marker of each package that a lock file pins."""
    found = PIN.findall((CHECKOUT / lock).read_text())
    return {(normalized(name), version, marker.strip()) for name, version, marker in found}


def pinned(lock: str) -> set[str]:
    return {name for name, _, _ in pins(lock)}


def imported_modules(file: Path) -> Iterator[str]:
    """The absolute imports of a file, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def imported_packages(*folders: str) -> dict[str, set[str]]:
    """For each third-party module that is imported: the packages that provide it."""
    ours = {*IMAGE, "launcher", "benchmarks", "tests"}
    providers = packages_distributions()
    files = [file for folder in folders for file in (CHECKOUT / folder).rglob("*.py")]
    modules = {name for file in files if file != GENERATOR for name in imported_modules(file)}
    third_party = {module.split(".")[0] for module in modules} - sys.stdlib_module_names - ours
    return {module: {normalized(name) for name in providers[module]} for module in third_party}


def test_every_package_that_the_image_imports_is_a_dependency_of_the_project() -> None:
    dependencies = names(PROJECT["project"]["dependencies"])
    for module, packages in imported_packages(*IMAGE).items():
        assert packages & dependencies, module


def test_every_package_that_the_launcher_imports_is_installed_by_the_start_script() -> None:
    dependencies = names(PROJECT["project"]["dependencies"]) | names(EXTRAS["local"])
    for module, packages in imported_packages("launcher").items():
        assert packages & dependencies, module


def test_every_package_that_the_benchmarks_import_is_a_dependency_of_some_kind() -> None:
    dependencies = names(PROJECT["project"]["dependencies"])
    dependencies |= names(EXTRAS["local"]) | names(EXTRAS["benchmarks"])
    for module, packages in imported_packages("benchmarks").items():
        assert packages & dependencies, module


def test_the_services_are_installed_without_what_only_a_local_run_needs() -> None:
    for extra in EXTRAS.values():
        assert not names(extra) & pinned("requirements.lock")
        assert names(extra) <= pinned("requirements-dev.lock")
    assert names(EXTRAS["local"]) <= pinned("requirements-local.lock")
    assert not names(EXTRAS["benchmarks"]) & pinned("requirements-local.lock")


def test_every_dependency_is_pinned() -> None:
    assert names(PROJECT["project"]["dependencies"]) <= pinned("requirements.lock")
    assert names(PROJECT["dependency-groups"]["dev"]) <= pinned("requirements-dev.lock")


def test_each_lock_file_contains_the_smaller_one_with_the_same_versions() -> None:
    services, local, dev = map(pins, LOCKS)
    assert services < local < dev


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_package_has_two_versions_for_one_python(lock: str) -> None:
    text = (CHECKOUT / lock).read_text()
    found = pins(lock)
    assert len(found) == len(re.findall(r"^[^ #\n]", text, re.MULTILINE))
    assert len({(name, marker) for name, _, marker in found}) == len(found)
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block


def test_the_image_installs_the_lock_file_of_the_services_and_copies_only_their_folders() -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    assert re.findall(r"\S+\.lock", dockerfile) == ["requirements.lock", "requirements.lock"]
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == {*IMAGE, "requirements.lock"}


def test_the_scripts_install_the_lock_file_that_they_need() -> None:
    installed = {
        name: set(re.findall(r"^[^#\n]*?(requirements\S*\.lock)", text, re.MULTILINE))
        for name in ("start-services.sh", "run-tests.sh", "run-benchmarks.sh")
        for text in [(CHECKOUT / name).read_text()]
    }
    assert installed == {
        "start-services.sh": {"requirements-local.lock"},
        "run-tests.sh": {"requirements-dev.lock"},
        "run-benchmarks.sh": {"requirements-local.lock", "requirements-dev.lock"},
    }
