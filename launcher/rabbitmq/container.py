"""RabbitMQ in a container, for a machine with a Docker engine and no installed server."""

import hashlib
import os
import shlex
import shutil
import subprocess

from launcher.layout import Layout
from launcher.rabbitmq.endpoint import Endpoint
from launcher.services import RABBITMQ
from launcher.supervisor.programs import Program

IMAGE = "rabbitmq:4-management"


def engine_available() -> bool:
    """Whether this user can use a Docker engine."""
    if shutil.which("docker") is None:
        return False
    try:
        completed = subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return completed.returncode == 0


def program(layout: Layout, endpoint: Endpoint) -> Program:
    """A container with a volume for its messages; its ports are open on loopback only."""
    digest = hashlib.sha256(os.fsencode(layout.run_dir)).hexdigest()[:12]
    name = f"shop-rabbitmq-{digest}"
    command = ["docker", "run", "--rm", "--name", name, "--hostname", "rabbitmq"]
    command += ["--publish", f"127.0.0.1:{endpoint.port}:5672"]
    command += ["--publish", f"127.0.0.1:{endpoint.management_port}:15672"]
    command += ["--volume", f"{name}:/var/lib/rabbitmq"]
    # Without a value docker reads it from its environment: other users can read command lines.
    for variable in ("USER", "PASS", "VHOST"):
        command += ["--env", f"RABBITMQ_DEFAULT_{variable}"]
    return Program(
        name=RABBITMQ,
        command=[*command, IMAGE],
        directory=layout.run_dir,
        environment={
            "RABBITMQ_DEFAULT_USER": endpoint.user,
            "RABBITMQ_DEFAULT_PASS": endpoint.password,
            "RABBITMQ_DEFAULT_VHOST": endpoint.vhost,
        },
        stop_seconds=30,
        # A client that was killed leaves its container running, with this name and these ports.
        before=f"docker rm --force {shlex.quote(name)} >/dev/null 2>&1",
    )
