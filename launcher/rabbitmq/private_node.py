"""A private node of an installed RabbitMQ server, with its own cookie, files, ports and epmd."""

import json
import os
from pathlib import Path

from launcher import ports
from launcher.environment.files import write_private
from launcher.layout import Layout
from launcher.rabbitmq.endpoint import Endpoint
from launcher.services import RABBITMQ
from launcher.supervisor.programs import Program

_COMMON_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/sbin", "/usr/local/sbin", "/opt/rabbitmq/sbin")
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
"""raft.wal_max_size_bytes: the log of quorum queues is in memory as well; the default is 512 MB."""
_HOME = "/proc/self/cwd"
"""The node's folder, which is its cwd and that of its tools, by a path without spaces or percent
signs: some parts of RabbitMQ cannot handle those."""
_LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"


def find_script() -> Path | None:
    """The start script of the installed server; None if no server is installed.

    The `rabbitmq-server` that distributions put on the PATH is a wrapper that changes user and
    folder. The server's own script has `rabbitmq-env` alongside it.
    """
    folders = [*_COMMON_FOLDERS, *os.get_exec_path()]
    scripts = (Path(folder) / "rabbitmq-server" for folder in folders)
    return next((script for script in scripts if script.with_name("rabbitmq-env").exists()), None)


def program(layout: Layout, endpoint: Endpoint, script: Path) -> Program:
    """The node to supervise: it listens at `endpoint` and has its login and virtual host."""
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
            definitions=f"{_HOME}/definitions.json",
        )
    )
    (home / "enabled_plugins").write_text("[rabbitmq_management].\n")
    return Program(
        name=RABBITMQ,
        command=[str(script)],
        directory=home,
        environment={
            "HOME": _HOME,
            "RABBITMQ_NODENAME": "shop@localhost",
            "RABBITMQ_DIST_PORT": str(ports.free_port()),
            "ERL_EPMD_PORT": str(ports.free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{_HOME}/mnesia",
            "RABBITMQ_LOG_BASE": _HOME,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{_HOME}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{_HOME}/rabbitmq.conf",
            # The default file configures the machine's own node.
            "RABBITMQ_CONF_ENV_FILE": f"{_HOME}/rabbitmq-env.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LOOPBACK_ONLY} {_schedulers()}",
            "ERL_CRASH_DUMP_SECONDS": "0",
            # Makes the script exec the server, so that the supervised process is the server.
            "RUNNING_UNDER_SYSTEMD": "true",
        },
        stop_seconds=30,
    )


def _schedulers() -> str:
    """Schedulers for half of the cores (https://www.rabbitmq.com/docs/runtime#scheduling).

    The services need the other cores, and more schedulers cost the node a quarter more CPU.
    """
    half = max(1, len(os.sched_getaffinity(0)) // 2)
    return f"+S {half}:{half}"


def _definitions(endpoint: Endpoint) -> dict[str, object]:
    """User, virtual host and permissions; loaded at every start, so that changes take effect."""
    all_rights = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [{"name": endpoint.user, "password": endpoint.password, "tags": "administrator"}],
        "vhosts": [{"name": endpoint.vhost}],
        "permissions": [{"user": endpoint.user, "vhost": endpoint.vhost, **all_rights}],
    }
