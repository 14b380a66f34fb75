"""`python -m benchmarks.serve_fusepy DIR SPEC`: the same machine through libfuse, until we are killed."""

import importlib
import json
import sys

from benchmarks.serve import build


def main() -> None:
    """Build and serve."""
    adapter = importlib.import_module("fakedev.fuse.fusepy_adapter")  # needs an optional extra
    with adapter.Mount(build(json.loads(sys.argv[2])), sys.argv[1], as_root=True) as mount:
        mount.wait_closed()


if __name__ == "__main__":
    main()
