"""Assembles a seccomp filter: classic BPF over `struct seccomp_data` (include/uapi/linux/seccomp.h).

The kernel runs the filter once for each number with unknown arguments, and never again for numbers that
are allowed whatever these are (`seccomp_is_const_allow`): most calls cost a bit test.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fakedev.sandbox.exact.numbers import Arch
from fakedev.sandbox.exact.rules import Alternative, Test

RET_ALLOW = 0x7FFF_0000
RET_USER_NOTIF = 0x7FC0_0000

_LOAD, _JEQ, _JGE, _JSET, _JUMP, _RET = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_CODES = {"eq": (_JEQ, True), "ne": (_JEQ, False), "ge": (_JGE, True), "set": (_JSET, True),
          "clear": (_JSET, False)}  # fmt: skip
_INSTRUCTION = struct.Struct("=HBBI")


class Instruction(NamedTuple):
    """One `struct sock_filter`."""

    code: int
    yes: int
    no: int
    k: int


def program(tables: Sequence[tuple[Arch, Mapping[str, Sequence[Alternative]]]]) -> bytes:
    """The filter for callers of these architectures; others are left alone."""
    code = [Instruction(_LOAD, 0, 0, _ARCH)]
    for arch, rules in tables:
        body = _table(arch, rules)
        code += [Instruction(_JEQ, 1, 0, arch.audit), Instruction(_JUMP, 0, 0, len(body)), *body]
    code.append(Instruction(_RET, 0, 0, RET_ALLOW))
    return b"".join(_INSTRUCTION.pack(*one) for one in code)


def _table(arch: Arch, rules: Mapping[str, Sequence[Alternative]]) -> list[Instruction]:
    code = [Instruction(_LOAD, 0, 0, _NUMBER)]
    for name, number in sorted(arch.calls.items(), key=lambda item: item[1]):
        alternatives = rules.get(name)
        if alternatives:
            body = _call(alternatives)
            code += [Instruction(_JEQ, 0, len(body), number), *body]
    return [*code, Instruction(_RET, 0, 0, RET_ALLOW)]


def _call(alternatives: Iterable[Alternative]) -> list[Instruction]:
    code: list[Instruction] = []
    for tests in alternatives:
        code += _alternative(tests)
    return [*code, Instruction(_RET, 0, 0, RET_ALLOW)]


def _alternative(tests: Alternative) -> list[Instruction]:
    """Falls through behind its end where a test fails."""
    code: list[Instruction] = []
    for index, test in enumerate(tests):
        rest = 2 * (len(tests) - index - 1) + 1  # the tests that follow, and the return
        code += _test(test, rest)
    return [*code, Instruction(_RET, 0, 0, RET_USER_NOTIF)]


def _test(test: Test, rest: int) -> list[Instruction]:
    code, wanted = _CODES[test.kind]
    offset = _ARGUMENTS + 8 * test.argument + 4 * test.high
    yes, no = (0, rest) if wanted else (rest, 0)
    return [Instruction(_LOAD, 0, 0, offset), Instruction(code, yes, no, test.value)]
