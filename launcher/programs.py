"""A program that supervisord runs, and how supervisord is told of it."""

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

# startsecs: longer than a service takes to give up, which then counts as a failure to start.
# startretries: after n failures in a row the next try comes n seconds later, for ever.
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
    """A command to keep running. It must stay in the foreground."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_seconds: int = 15
    before: str = ""
    """A line of shell to run before each start."""

    def script(self) -> str:
        """The shell script that becomes the program."""
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
    """Write supervisord's configuration, to be used with the run directory as its cwd.

    It names files relative to that, and each program's script holds the rest, because an absolute
    path may have spaces, percent signs or hashes, which mean something to supervisord.
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
    """The folder of sockets: supervisord would add the whole path of the cwd to a relative one."""
    beside = layout.sockets.parent == layout.run_dir
    return "sockets" if beside else str(layout.sockets).replace("%", "%%")
