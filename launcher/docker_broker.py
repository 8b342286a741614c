"""RabbitMQ in a container, where a Docker engine answers and no server is installed."""

import hashlib
import os
import shlex
import shutil
import subprocess

from launcher.endpoint import Endpoint
from launcher.layout import RABBITMQ, Layout
from launcher.programs import Program

IMAGE = "rabbitmq:4-management"


def engine_answers() -> bool:
    """Whether there is a Docker engine that we may use."""
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def program(layout: Layout, endpoint: Endpoint) -> Program:
    """A container that keeps its messages in a volume of its own, published on loopback only."""
    digest = hashlib.sha256(os.fsencode(layout.run_dir)).hexdigest()[:12]
    name = f"shop-rabbitmq-{digest}"
    command = ["docker", "run", "--rm", "--name", name, "--hostname", "rabbitmq"]
    command += ["--publish", f"127.0.0.1:{endpoint.port}:5672"]
    command += ["--publish", f"127.0.0.1:{endpoint.management_port}:15672"]
    command += ["--volume", f"{name}:/var/lib/rabbitmq"]
    # Named without a value: docker takes it from its environment, not from a readable command line.
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
        # A client that was killed leaves its container behind, with our name and ports.
        before=f"docker rm --force {shlex.quote(name)} >/dev/null 2>&1",
    )
