"""A private RabbitMQ node from an installed server: own name, cookie, files, ports and epmd."""

import json
import os
from pathlib import Path

from launcher import ports
from launcher.endpoint import Endpoint
from launcher.environment import write_private
from launcher.layout import RABBITMQ, Layout
from launcher.programs import Program

_USUAL_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/sbin", "/usr/local/sbin", "/opt/rabbitmq/sbin")
_CONFIGURATION = """\
listeners.tcp.1 = {host}:{port}
management.tcp.ip = {host}
management.tcp.port = {management_port}
load_definitions = {definitions}
log.console = true
log.console.level = warning
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.relative = 0.3
raft.wal_max_size_bytes = 64000000
"""
"""The log of the quorum queues is kept in memory, too: 512 MB of it unless told otherwise."""
# The node's own folder by a name without spaces or percent signs, which parts of RabbitMQ take
# apart. Its cwd is that folder, and so is that of the tools that it calls.
_HERE = "/proc/self/cwd"
_LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"


def find_script() -> Path | None:
    """The installed server's own start script; None if no server is installed.

    A distribution's `rabbitmq-server` on the PATH is a wrapper that changes user and folder. The
    real one has `rabbitmq-env` beside it.
    """
    folders = [*_USUAL_FOLDERS, *os.get_exec_path()]
    scripts = (Path(folder) / "rabbitmq-server" for folder in folders)
    return next((script for script in scripts if script.with_name("rabbitmq-env").exists()), None)


def program(layout: Layout, endpoint: Endpoint, script: Path) -> Program:
    """The node to supervise: it listens where `endpoint` says and knows that login and vhost."""
    home = layout.run_dir / "rabbitmq"
    home.mkdir(mode=0o700, exist_ok=True)
    configuration = home / "rabbitmq.conf"
    definitions = home / "definitions.json"
    write_private(definitions, json.dumps(_definitions(endpoint)))
    configuration.write_text(
        _CONFIGURATION.format(
            host="[::1]" if endpoint.host == "::1" else "127.0.0.1",
            port=endpoint.port,
            management_port=endpoint.management_port,
            definitions=f"{_HERE}/definitions.json",
        )
    )
    (home / "enabled_plugins").write_text("[rabbitmq_management].\n")
    return Program(
        name=RABBITMQ,
        command=[str(script)],
        directory=home,
        environment={
            "HOME": _HERE,
            "RABBITMQ_NODENAME": "shop@localhost",
            "RABBITMQ_DIST_PORT": str(ports.free_port()),
            "ERL_EPMD_PORT": str(ports.free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{_HERE}/mnesia",
            "RABBITMQ_LOG_BASE": _HERE,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{_HERE}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{_HERE}/rabbitmq.conf",
            # The machine's own node may have one, which is not meant for us.
            "RABBITMQ_CONF_ENV_FILE": f"{_HERE}/rabbitmq-env.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LOOPBACK_ONLY} {_schedulers()}",
            "ERL_CRASH_DUMP_SECONDS": "0",
            # The script then becomes the server instead of waiting for it, so that the process
            # which is watched, and may be killed, is the server.
            "RUNNING_UNDER_SYSTEMD": "true",
        },
        stop_seconds=30,
    )


def _schedulers() -> str:
    """Schedulers for half of the cores (https://www.rabbitmq.com/docs/runtime#scheduling).

    The services need the others, and schedulers that wake each other cost the node a quarter.
    """
    half = max(1, len(os.sched_getaffinity(0)) // 2)
    return f"+S {half}:{half}"


def _definitions(endpoint: Endpoint) -> dict[str, object]:
    """What the node must know; loaded at every start, so a changed password takes effect."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [{"name": endpoint.user, "password": endpoint.password, "tags": "administrator"}],
        "vhosts": [{"name": endpoint.vhost}],
        "permissions": [{"user": endpoint.user, "vhost": endpoint.vhost, **everything}],
    }
