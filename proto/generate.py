"""Generates the Python modules of every `.proto` file in this folder: `python -m proto.generate`.

The generated files are committed; `run-tests.sh` regenerates them and fails on a difference.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent


def main() -> int:
    """Regenerate in place; returns protoc's exit code."""
    root = HERE.parent
    well_known = files("grpc_tools") / "_proto"
    google_apis = next(p for p in sys.path if (Path(p) / "google/rpc/status.proto").is_file())
    return int(
        protoc.main(
            [
                "protoc",
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
