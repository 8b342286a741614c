"""The files that help contributors: they call what exists, and download nothing."""

import re
import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from tests.support.infrastructure import CHECKOUT

DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_only_calls_the_scripts() -> None:
    targets = ["start", "stop", "status", "logs", "test", "faults", "benchmark"]
    result = subprocess.run(
        ["make", "--dry-run", "ARGS=--some", *targets],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == len(targets)
    for line in lines:
        script, *_, last = line.split()
        assert (CHECKOUT / script).is_file()
        assert last == "--some"


def test_hooks_before_a_commit_run_from_the_virtual_environment() -> None:
    config = YAML(typ="safe").load(CHECKOUT / ".pre-commit-config.yaml")
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert (CHECKOUT / program).exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", (CHECKOUT / document).read_text()):
        assert (CHECKOUT / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scripts_that_are_named_exist(document: str) -> None:
    for script in re.findall(r"\./([\w-]+\.sh)", (CHECKOUT / document).read_text()):
        assert (CHECKOUT / script).is_file(), script
