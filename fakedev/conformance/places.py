"""Where the probe and the recordings lie."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
RECORDED = ("default", "lockdown-integrity")


def folder() -> Path:
    """Inside the package in a wheel, in the tests of a checkout."""
    inside = _PACKAGE / "data"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "tests" / "conformance"


def recording(name: str) -> Path:
    """The recording of a configuration that comes with fakedev."""
    return folder() / f"{name}.jsonl.xz"


def sources(name: str) -> list[Path]:
    """The C files of a program: one, or those of a folder with their headers."""
    single = folder() / f"{name}.c"
    return [single] if single.is_file() else sorted((folder() / name).glob("*.[ch]"))
