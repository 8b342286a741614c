"""The programs that supervisord runs, and its configuration file."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.layout import Layout

_SUPERVISORD = """\
[supervisord]
nodaemon=true
silent=true
logfile=supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=supervisord.pid
childlogdir=logs
{user}
[unix_http_server]
file={sockets}/supervisord.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

# startsecs: longer than a service takes to give up, so that giving up is a failure to start.
# startretries: unlimited; after n failures in a row the next attempt is n seconds later.
_PROGRAM = """
[program:{name}]
command=/bin/sh programs/{name}.sh
priority={priority}
autostart=false
autorestart=true
startsecs=3
startretries=1000000000
stopsignal={stop_signal}
stopwaitsecs={stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


@dataclass(frozen=True)
class Program:
    """A command to keep running; it must stay in the foreground."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_seconds: int = 15
    before: str = ""
    """A shell command to run before each start."""

    def script(self) -> str:
        """The shell script that sets the environment and then becomes the command."""
        exports = (
            f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()
        )
        lines = (
            "#!/bin/sh",
            f"cd {shlex.quote(str(self.directory))} || exit 1",
            *exports,
            *([self.before] if self.before else []),
            f"exec {shlex.join(self.command)}",
        )
        return "\n".join(lines) + "\n"


def write_configuration(layout: Layout, programs: Iterable[Program]) -> Path:
    """Write supervisord's configuration, which is valid with the run directory as its cwd.

    Paths in it are relative, and commands are in a script per program: absolute paths may contain
    spaces, percent signs or hashes, which have a meaning in that file.
    """
    folder = layout.run_dir / "programs"
    folder.mkdir(mode=0o700, exist_ok=True)
    text = _SUPERVISORD.format(
        user="user=root\n" if os.geteuid() == 0 else "", sockets=_sockets(layout)
    )
    for priority, program in enumerate(programs, start=1):
        (folder / f"{program.name}.sh").write_text(program.script())
        text += _PROGRAM.format(
            name=program.name,
            priority=priority,
            stop_signal=program.stop_signal,
            stop_seconds=program.stop_seconds,
        )
    path = layout.run_dir / "supervisord.conf"
    path.write_text(text)
    return path


def _sockets(layout: Layout) -> str:
    """The folder of sockets, as supervisord's configuration names it."""
    in_run_dir = layout.sockets.parent == layout.run_dir
    return "sockets" if in_run_dir else str(layout.sockets).replace("%", "%%")
