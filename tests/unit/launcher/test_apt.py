"""Packages are installed by one process at a time, no matter which script or checkout starts it.

`apt-get` and `dpkg-query` are scripts here. Like the real one, this apt-get fails if it runs while
another one does.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher import apt
from launcher.errors import LauncherError
from tests.support.infrastructure import CHECKOUT

APT_GET = """\
#!/bin/sh
cd {state} || exit 1
if ! mkdir running; then
    echo "$*" >>conflicts
    echo 'E: Unable to acquire the dpkg frontend lock, is another process using it?'
    exit 100
fi
echo "$*" >>calls
sleep 0.3
{body}
case $* in *' install '*) touch installed ;; esac
rmdir running
"""
DPKG_QUERY = """\
#!/bin/sh
[ -e {state}/installed ] || exit 1
printf installed
"""
NO_VENV_MODULE = """\
#!/bin/sh
case $* in
'-m venv --clear .venv') [ -e {state}/installed ] && mkdir .venv ;;
'-m venv'*) exit 1 ;;
*) exec '{python}' "$@" ;;
esac
"""


class Machine:
    """A machine with a fake apt-get, and a record of how it was called."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.replace_apt_get("")
        self.add_program("dpkg-query", DPKG_QUERY)

    def add_program(self, name: str, text: str, **values: str) -> Path:
        path = self.programs / name
        path.write_text(text.format(state=self.state, **values))
        path.chmod(0o700)
        return path

    def replace_apt_get(self, body: str) -> None:
        """Make apt-get run these lines of shell as well."""
        self.add_program("apt-get", APT_GET, body=body)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}

    @property
    def calls(self) -> list[str]:
        """The subcommands of apt-get that ran, in order."""
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[2] for line in lines]

    @property
    def conflicts(self) -> bool:
        """Whether two apt-get ever ran at the same time."""
        return (self.state / "conflicts").exists()

    def start(self, *command: str, cwd: Path = CHECKOUT) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", machine.environment["PATH"])
    monkeypatch.setattr(apt, "PAUSE_SECONDS", 0.01)
    return machine


def test_a_package_is_installed_from_current_package_lists(machine: Machine) -> None:
    apt.install("some-package", print)
    assert machine.calls == ["update", "install"]
    command = (machine.state / "calls").read_text().splitlines()[1]
    assert command == ("-o DPkg::Lock::Timeout=300 install -y --no-install-recommends some-package")


def test_an_installed_package_is_not_installed_again(machine: Machine) -> None:
    (machine.state / "installed").touch()
    apt.install("some-package", print)
    assert machine.calls == []


def test_of_processes_that_install_at_the_same_time_one_does_and_the_others_find_it_installed(
    machine: Machine,
) -> None:
    command = (sys.executable, "-m", "launcher.apt", "some-package")
    installations = [machine.start(*command) for _ in range(3)]
    results = [(*each.communicate(timeout=60), each.returncode) for each in installations]
    assert [(errors, code) for _, errors, code in results] == [("", 0)] * 3
    assert machine.calls == ["update", "install"]
    assert not machine.conflicts


def test_first_starts_of_two_checkouts_at_the_same_time_do_not_disturb_each_other(
    machine: Machine, tmp_path: Path
) -> None:
    machine.add_program("id", "#!/bin/sh\necho 0\n")
    python = str(machine.add_program("python-without-venv", NO_VENV_MODULE, python=sys.executable))
    script = f"PYTHON={python}; . launcher/venv.sh; create_venv"
    checkouts = [tmp_path / "one", tmp_path / "two"]
    for checkout in checkouts:
        (checkout / "launcher").mkdir(parents=True)
        for name in ("__init__.py", "apt.py", "errors.py", "venv.sh"):
            shutil.copy(CHECKOUT / "launcher" / name, checkout / "launcher" / name)
    starts = [machine.start("bash", "-c", script, cwd=checkout) for checkout in checkouts]
    results = [(start.communicate(timeout=60)[1], start.returncode) for start in starts]
    assert results == [("", 0)] * 2
    assert all((checkout / ".venv").exists() for checkout in checkouts)
    assert machine.calls == ["update", "install"]
    assert not machine.conflicts


def test_a_process_that_waits_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "TURN_SECONDS", 0.1)
    notices: list[str] = []
    with (machine.programs / "apt-get").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        apt.install("some-package", notices.append)
    assert notices == ["Waiting for another process that installs a package"]


def test_processes_that_only_wait_do_not_wait_for_each_other(machine: Machine) -> None:
    notices: list[str] = []
    with (machine.programs / "apt-get").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        apt.wait_for_others(notices.append)
    assert notices == []


def test_the_wait_for_another_process_is_bounded(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "TURN_SECONDS", 0.2)
    began = time.monotonic()
    with (machine.programs / "apt-get").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        apt.install("some-package", print)
    assert time.monotonic() - began > 0.2
    assert machine.calls == ["update", "install"]


def test_a_server_that_a_package_starts_does_not_keep_the_lock(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.replace_apt_get("sleep 20 >/dev/null 2>&1 & echo $! >server")
    apt.install("some-package", print)
    server = int((machine.state / "server").read_text())
    notices: list[str] = []
    monkeypatch.setattr(apt, "TURN_SECONDS", 0.0)
    apt.wait_for_others(notices.append)
    os.kill(server, 9)
    assert notices == []


@pytest.mark.parametrize(
    "message",
    [
        "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)",
        "E: Unable to lock directory /var/lib/apt/lists/",
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)",
    ],
)
def test_locks_of_other_programs_are_waited_for(machine: Machine, message: str) -> None:
    machine.replace_apt_get(
        f'[ "$(wc -l <calls)" -gt 2 ] || {{ echo "{message}"; rmdir running; exit 100; }}'
    )
    apt.install("some-package", print)
    assert machine.calls == ["update", "update", "update", "install"]


def test_a_lock_that_is_never_released_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "LOCK_SECONDS", 0.1)
    (machine.state / "running").mkdir()
    with pytest.raises(LauncherError, match="could not install some-package: E: Unable to acquire"):
        apt.install("some-package", print)


def test_a_failed_installation_reports_the_last_line_of_apt(machine: Machine) -> None:
    machine.replace_apt_get("echo Reading lists; echo 'E: no space left'; rmdir running; exit 100")
    with pytest.raises(LauncherError, match="could not install some-package: E: no space left"):
        apt.install("some-package", print)
    assert machine.calls == ["update"]


def test_an_installation_that_hangs_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "COMMAND_SECONDS", 0.2)
    machine.replace_apt_get("exec sleep 20 >/dev/null 2>&1")
    with pytest.raises(LauncherError, match=r"apt-get .* update took over"):
        apt.install("some-package", print)


def test_a_failure_is_one_line_and_an_exit_code_for_the_scripts(machine: Machine) -> None:
    machine.replace_apt_get("echo 'E: no space left'; rmdir running; exit 100")
    process = machine.start(sys.executable, "-m", "launcher.apt", "some-package")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == "error: apt-get could not install some-package: E: no space left\n"


def test_the_scripts_can_install_before_there_are_other_packages(machine: Machine) -> None:
    without_packages = (sys.executable, "-I", "-S", "-c")
    run = "import sys; sys.path.insert(0, '.'); from launcher import apt; apt.install('a', print)"
    process = machine.start(*without_packages, run)
    assert process.communicate(timeout=60) == ("", "")
    assert machine.calls == ["update", "install"]


@pytest.mark.parametrize(
    "script", ["launcher/venv.sh", "start-services.sh", "run-tests.sh", "run-benchmarks.sh"]
)
def test_no_script_runs_apt_get_by_itself(script: str) -> None:
    text = (CHECKOUT / script).read_text()
    assert "apt-get install" not in text
    assert "apt-get update" not in text
