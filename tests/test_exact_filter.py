"""The seccomp filter, run by an interpreter, against the rules said in plain words."""

import platform
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakedev.sandbox.exact import bpf, listener
from fakedev.sandbox.exact.numbers import AARCH64, HOSTS, I386, X86_64, Arch
from fakedev.sandbox.exact.rules import Alternative, identity_rules, memory_rules, rules
from fakedev.views.kinds import REGULAR_COMMANDS

ALLOW, NOTIFY = 0x7FFF_0000, 0x7FC0_0000
LONGEST = 4096  # BPF_MAXINSNS
HOST_TABLES = [pytest.param(tables, id=name) for name, tables in HOSTS.items()]
ALWAYS = {"fstat", "fstat64", "fsync", "fdatasync", "ftruncate", "ftruncate64",
          "sendfile", "sendfile64", "splice", "copy_file_range",
          "readahead", "sync_file_range", "mremap", "mincore", "mlock", "mlock2", "vmsplice",
          "remap_file_pages", "process_vm_readv", "process_vm_writev"}  # fmt: skip
#: madvise: REMOVE DOFORK DODUMP COLD PAGEOUT POPULATE_READ POPULATE_WRITE DONTNEED_LOCKED
ADVICE = {9, 11, 17, 20, 21, 22, 23, 24}


class TouchedError(Exception):
    """The filter looked at an argument."""


def run(program: bytes, arch: int, number: int, arguments: tuple[int, ...] | None) -> int:
    """What `seccomp_run_filters` returns; without arguments, what `seccomp_is_const_allow` would."""
    data = struct.pack("=IIQ", number, arch, 0x1234_5678_9ABC)
    if arguments is not None:
        data += struct.pack("=6Q", *arguments)
    code = list(struct.iter_unpack("=HBBI", program))
    at = loaded = 0
    while True:
        kind, yes, no, k = code[at]
        at += 1
        if kind == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert k % 4 == 0
            assert k + 4 <= 64
            if k + 4 > len(data) or (arguments is None and k >= 8):
                raise TouchedError
            (loaded,) = struct.unpack_from("=I", data, k)
        elif kind == 0x05:  # BPF_JMP | BPF_JA
            at += k
        elif kind == 0x06:  # BPF_RET | BPF_K
            return int(k)
        else:
            holds = {0x15: loaded == k, 0x35: loaded >= k, 0x45: bool(loaded & k)}[kind]
            at += yes if holds else no


def wanted(arch: Arch, name: str, arguments: tuple[int, ...]) -> bool:
    """Whether a call is worth a look, in plain words."""
    first = [argument & 0xFFFF_FFFF for argument in arguments]
    if name in ("mmap", "mmap2"):
        return first[4] != 0xFFFF_FFFF and not first[3] & 0x20 and not first[3] & 0x800
    if name in ("newfstatat", "fstatat64"):
        return bool(first[3] & 0x1000)
    if name == "statx":
        return bool(first[2] & 0x1000)
    if name == "lseek":
        sign = first[1] >> 31 if arch is I386 else arguments[1] >> 63
        return bool(first[2] >= 2 or sign)
    if name == "_llseek":
        return bool(first[4] >= 2 or first[1] >> 31)
    if name == "ioctl":
        return first[1] in REGULAR_COMMANDS or 0x5043_4900 <= first[1] <= 0x5043_4905
    if name in ("fcntl", "fcntl64"):
        return first[1] == 4 and bool(first[2] & (0x1_0000 if arch is AARCH64 else 0x4000))
    if name in ("pread64", "pwrite64"):
        return arguments[2] == 0
    if name in arch.identity:
        return wanted_of_users(name, first)
    return wanted_of_addresses(name, first) or name in ALWAYS


def wanted_of_users(name: str, first: list[int]) -> bool:
    if name == "prctl":
        return first[0] in (8, 28, 29)  # KEEPCAPS, SECUREBITS, TIMERSLACK
    if "chown" in name:
        ids = first[2:4] if name == "fchownat" else first[1:3]
        return any(one not in (0, 0xFFFF_FFFF) for one in ids)
    return True


def wanted_of_addresses(name: str, first: list[int]) -> bool:
    if name == "madvise":
        return first[2] in ADVICE
    return name == "mlockall" and bool(first[0] & 1)


def numbers(arch: Arch) -> dict[str, int]:
    return arch.calls | arch.memory | arch.identity


def rules_of(arch: Arch) -> dict[str, tuple[Alternative, ...]]:
    return rules(arch.name) | memory_rules(arch) | identity_rules(arch)


def program_of(tables: tuple[Arch, ...]) -> bytes:
    return bpf.program([(arch._replace(calls=numbers(arch)), rules_of(arch)) for arch in tables])


@pytest.mark.parametrize("tables", HOST_TABLES)
def test_every_way_through_ends_in_range(tables: tuple[Arch, ...]) -> None:
    code = list(struct.iter_unpack("=HBBI", program_of(tables)))
    assert len(code) <= LONGEST
    for at, (kind, yes, no, k) in enumerate(code):
        if kind == 0x05:
            assert at + 1 + k < len(code)
        elif kind in (0x15, 0x35, 0x45):
            assert at + 1 + max(yes, no) < len(code)
        else:
            assert kind in (0x20, 0x06)
            assert kind == 0x20 or k in (ALLOW, NOTIFY)
    assert code[-1][0] == 0x06


@pytest.mark.parametrize("tables", HOST_TABLES)
def test_other_numbers_are_allowed_whatever_their_arguments_are(tables: tuple[Arch, ...]) -> None:
    program = program_of(tables)
    for arch in tables:
        looked_at = {number for name, number in numbers(arch).items() if name in rules_of(arch)}
        for number in range(600):
            if number in looked_at:
                continue
            assert run(program, arch.audit, number, None) == ALLOW, (arch.name, number)
        assert run(program, arch.audit, 0x4000_0005, None) == ALLOW  # of x32
        assert run(program, arch.audit, 0xFFFF_FFFF, None) == ALLOW


@pytest.mark.parametrize("tables", HOST_TABLES)
def test_other_architectures_are_left_alone(tables: tuple[Arch, ...]) -> None:
    for arch in (X86_64, I386, AARCH64):
        if arch not in tables:
            for number in arch.calls.values():
                assert run(program_of(tables), arch.audit, number, None) == ALLOW


words = st.integers(0, (1 << 64) - 1)
EDGES = (
    [0, 1, 2, 3, 4, 0x20, *REGULAR_COMMANDS, 0x800, 0x820, 0x1000, 0x1100, 0x4000, 0x1_0000, 0x541B, 0x5043_4900,
     0x5043_4905, 0x5043_4906, 0x8000_0000, 0xFFFF_FFFF, 1 << 63, (1 << 64) - 1, 1 << 32,
     8, 9, 11, 17, 24, 25, 28, 29, 0xDEAD_0000_0000_1000]
)  # fmt: skip
CALLS = [
    (arch, name)
    for arch in (X86_64, I386, AARCH64)
    for name in sorted(rules_of(arch))
    if name in numbers(arch)
]
calls = st.sampled_from(CALLS)
arguments = st.tuples(*(words | st.sampled_from(EDGES),) * 6)
PROGRAMS = {host: program_of(tables) for host, tables in HOSTS.items()}


@given(calls, arguments)
@example((X86_64, "mmap"), (0, 4096, 1, 1, (1 << 64) - 1, 0))
@example((X86_64, "mmap"), (0, 4096, 1, 1, 0xFFFF_FFFF, 0))
@example((X86_64, "lseek"), (3, 1 << 31, 0, 0, 0, 0))
@example((I386, "lseek"), (3, 1 << 31, 0, 0, 0, 0))
def test_the_filter_says_what_the_rules_say(
    call: tuple[Arch, str], arguments: tuple[int, ...]
) -> None:
    check(*call, arguments)


@pytest.mark.parametrize("rest", [0, (1 << 64) - 1])
def test_every_argument_at_its_edges(rest: int) -> None:
    for arch, name in CALLS:
        for place in range(5):
            for edge in EDGES:
                arguments = [rest] * 6
                arguments[place] = edge
                check(arch, name, tuple(arguments))


def check(arch: Arch, name: str, arguments: tuple[int, ...]) -> None:
    host = next(host for host, tables in HOSTS.items() if arch in tables)
    action = run(PROGRAMS[host], arch.audit, numbers(arch)[name], arguments)
    assert action == (NOTIFY if wanted(arch, name, arguments) else ALLOW), (name, arguments)


@pytest.mark.parametrize("users", [True, False])
def test_this_hosts_filter_is_made_of_these(users: bool) -> None:
    if platform.machine() not in HOSTS:
        pytest.skip(f"no table for {platform.machine()}")
    program = listener.filter_program(users=users)
    assert program is not None
    for arch in HOSTS[platform.machine()]:
        assert run(program, arch.audit, arch.calls["fsync"], None) == NOTIFY
        setuid = next(number for name, number in arch.identity.items() if "setresuid" in name)
        assert run(program, arch.audit, setuid, None) == (NOTIFY if users else ALLOW)
    if users:
        assert program == PROGRAMS[platform.machine()]


def test_the_interpreter_can_tell() -> None:
    fstat = X86_64.calls["fstat"], (0,) * 6
    assert run(PROGRAMS["x86_64"], X86_64.audit, *fstat) == NOTIFY
    with pytest.raises(TouchedError):
        run(PROGRAMS["x86_64"], X86_64.audit, X86_64.calls["mmap"], None)
