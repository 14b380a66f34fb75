"""Junk in every file that takes something: the kernel's errno, never another error."""

import stat

import pytest
from pci_recorded import recorded_machine
from pci_tree import WRITER, Setup, read

from fakedev.views.node import Refused

JUNK = (
    b"", b"\n", b"0", b"-1", b"99999999999999999999999", b"0x", b"x" * 5000, b"\0", b"1\0junk", b" 1",
    b"a b c", b"ffff ffff", b"1" * 4096, b"on", b"+", b"0x10000000000000000", b"\t\r\x7f", b"%s%n",
)  # fmt: skip


def files(setup: Setup, bits: int) -> list[tuple[str, object]]:
    return [
        (path, node)
        for path, node in setup.tree.walk()
        if stat.S_ISREG(node.attr().mode) and node.attr().mode & bits and path != "/dev/mem"
    ]


@pytest.mark.parametrize("state", ["boot", "bound"])
def test_junk(state: str) -> None:
    setup = Setup(recorded_machine(state, port=True))
    for path, node in files(setup, 0o222):
        for junk in JUNK:
            try:
                taken = node.open(WRITER).write(0, memoryview(junk))  # type: ignore[attr-defined]
            except Refused as error:
                assert error.errno > 0, path  # noqa: PT017 - any errno will do
            else:
                assert taken <= len(junk), path
    for path, node in files(setup, 0o444):
        try:
            read(node)  # type: ignore[arg-type]
        except Refused as error:
            assert error.errno > 0, path  # noqa: PT017 - as above
