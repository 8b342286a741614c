"""Generates the Python modules of every `.proto` file in this folder: `python -m proto.generate`.

The generated files are committed; a test regenerates them and fails on a difference.
"""

import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent


def main() -> int:
    """Regenerate in place; returns protoc's exit code."""
    root = HERE.parent
    scripts = Path(sysconfig.get_path("scripts"))
    well_known = files("grpc_tools") / "_proto"
    google_apis = next(p for p in sys.path if (Path(p) / "google/rpc/status.proto").is_file())
    return int(
        protoc.main(
            [
                "protoc",
                f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
                f"-I{root}",
                f"-I{well_known}",
                f"-I{google_apis}",
                f"--python_out={root}",
                f"--grpc_python_out={root}",
                f"--mypy_out={root}",
                f"--mypy_grpc_out=async_only:{root}",
                *(str(path) for path in sorted(HERE.glob("*.proto"))),
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
