"""Rules of the repository: generated code is current, proto style, import directions."""

import os
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from grpc_tools import protoc

from tests.support.infrastructure import CHECKOUT

PROTO = CHECKOUT / "proto"
TOOLS = Path(sys.executable).parent
IMAGE = "image.binpb"


def run(*command: str | Path, cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    """Run one of the installed tools; standard error goes with the output."""
    environment = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def generated(folder: Path) -> dict[str, str]:
    """The generated modules in a folder, by name."""
    return {path.name: path.read_text() for path in folder.glob("*_pb2*.py*")}


def test_generating_the_code_again_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "proto"
    copy.mkdir()
    for path in (*PROTO.glob("*.proto"), PROTO / "generate.py", PROTO / "__init__.py"):
        shutil.copy(path, copy)
    result = run(sys.executable, "-m", "proto.generate", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert generated(copy) == generated(PROTO)
    assert len(generated(copy)) == 4 * len(list(PROTO.glob("*.proto")))


def lint(protos: Path, image: Path) -> subprocess.CompletedProcess[str]:
    """Check the .proto files below `protos`/proto against buf.yaml, without a network."""
    google = next(p for p in sys.path if (Path(p) / "google/rpc/status.proto").is_file())
    with as_file(files("grpc_tools") / "_proto") as well_known:
        paths = sorted((protos / "proto").glob("*.proto"))
        arguments = [f"-I{folder}" for folder in (protos, well_known, google)]
        arguments += ["--include_imports", "--include_source_info"]
        arguments += [f"--descriptor_set_out={image}", *map(str, paths)]
        assert protoc.main(["protoc", *arguments]) == 0
    return run("buf", "lint", image, "--config", CHECKOUT / "buf.yaml", "--path", "proto")


def test_the_proto_files_follow_the_style_guide(tmp_path: Path) -> None:
    result = lint(CHECKOUT, tmp_path / IMAGE)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("valid", "invalid"),
    [
        ("ORDER_STATUS_PENDING", "PENDING"),
        ("int64 total_cents", "int64 totalCents"),
        ("rpc GetOrder(", "rpc getOrder("),
        ("service OrderService", "service Orders"),
        ("ecommerce.order.v1;", "ecommerce.order;"),
        ("  // The same for many orders, each with its own result.\n", ""),
    ],
)
def test_a_violation_of_the_style_guide_is_found(tmp_path: Path, valid: str, invalid: str) -> None:
    shutil.copytree(PROTO, tmp_path / "proto", ignore=shutil.ignore_patterns("*.py*"))
    order = tmp_path / "proto" / "order.proto"
    text = order.read_text()
    assert valid in text
    order.write_text(text.replace(valid, invalid, 1))
    result = lint(tmp_path, tmp_path / IMAGE)
    assert result.returncode != 0
    assert "proto/order.proto" in result.stdout


def test_modules_import_only_what_their_layer_may() -> None:
    result = run("lint-imports", "--no-cache", "--no-logo")
    assert result.returncode == 0, result.stdout
