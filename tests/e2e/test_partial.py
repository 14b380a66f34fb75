"""Reads and writes that are refused half way, as an unprivileged tool sees them."""

from pathlib import Path

import pytest
from support import SOAK, Host, compiled, need_sandbox

HERE = Path(__file__).parent
STRICT = HERE / "strict.yaml"
MODES = {"exact": [], "no exact": ["--no-exact"]}
CLAIMED, TOP = "d0004000", "140000000"

# Name of the call: what it returns, how many bytes were moved, and the position behind it. The border is
# at 0, and the calls begin at -8. `do_loop_readv_writev` counts buffers that were done.
VECTORS = {
    "readv": (8, 8, 0), "readv inside": (4, 8, -4), "readv gaps": (8, 8, 0),
    "preadv": (8, 8, -8), "preadv inside": (4, 8, -8), "preadv wild": (4, 8, -8),
    "preadv2": (8, 8, -8), "preadv2 here": (4, 8, -4), "mapped readv": (8, 8, -8),
    **{
        when + name: outcome
        for when in ("", "mapped ")
        for name, outcome in {
            "writev": (8, 8, 0), "writev inside": (4, 8, -4), "pwritev": (8, 8, -8),
            "pwritev2": (4, 8, -8), "pwritev2 here": (8, 8, 0),
        }.items()
    },
}  # fmt: skip
PLAIN = {
    "read": 8, "pread": 8, "pread unaligned": 7, "pread pages": 4097, "pread refused": 0, "readv one": 8,
    "half pread": 8, "half read": 8, "shared": 8, "mapped": 8, "mapped private": 8, "child": 8,
    "large": 8, "large read": 8,
    "write": 8, "pwrite": 8, "pwrite refused": 0, "writev one": 8,
    "mapped write": 8, "mapped pwrite": 8, "mapped pwrite refused": 0, "mapped writev one": 8,
}  # fmt: skip
COMPAT_VECTORS = {
    "i386 readv": (4, 8, -4), "i386 preadv": (4, 8, -8), "i386 writev": (4, 8, -4),
    "i386 pwritev": (4, 8, -8),
}  # fmt: skip
COMPAT_PLAIN = {"i386 read": 8, "i386 pread64": 8, "i386 pwrite64": 8}
SAME = {
    "pread allowed: 8 8 +-8", "nowhere: EFAULT 0 +-8", "read-only: EFAULT 0 +-8",
}  # fmt: skip
LATE = {"large late", "large late read"}  # see docs/fidelity.md


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_sandbox()


@pytest.fixture
def program(folder: Path) -> Path:
    return compiled(HERE / "partial.c", folder)


@pytest.fixture
def claimed(tmp_path: Path) -> Path:
    """The machine of `strict`, with a driver in the middle of the board."""
    profile = tmp_path / "claimed.yaml"
    profile.write_text(STRICT.read_text() + f"      {CLAIMED}-d0004fff : driver\n")
    return profile


def lines(*, refusal: str, inside: int, plain: bool, compat: bool) -> set[str]:
    """What the program prints. `inside`: bytes that an unfinished buffer of 8 got; `plain`: any other got."""
    vectors = VECTORS | (COMPAT_VECTORS if compat else {})
    others = PLAIN | (COMPAT_PLAIN if compat else {})
    return {
        *(
            f"{name}: {n} {8 if n == 8 else 4 + inside} +{at}"
            for name, (n, _, at) in vectors.items()
        ),
        *(f"{name}: {refusal} {n if plain else 0} +-8" for name, n in others.items()),
        *(f"{name}: {2 << 20} {8 if plain else 0} +-8" for name in LATE),
        f"hidden: {refusal}",
        *SAME,
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_page_keeps_what_is_before_it(
    host: Host, claimed: Path, program: Path, mode: str
) -> None:
    done = host("run", "-q", *MODES[mode], claimed, "--", program, CLAIMED)
    assert (done.returncode, done.stderr) == (0, "")
    compat = "i386 read:" in done.stdout
    found = set(done.stdout.splitlines())
    assert found == lines(refusal="EPERM", inside=4, plain=True, compat=compat)


def test_a_range_that_is_refused_as_a_whole_moves_nothing(host: Host, program: Path) -> None:
    """`valid_phys_addr_range` looks at one buffer at a time: those before the end of memory are done."""
    settings = ["--set=kernel.strict_devmem=false", "--set=kernel.cmdline=nopat"]
    done = host("run", "-q", *settings, STRICT, "--", program, TOP)
    assert (done.returncode, done.stderr) == (0, "")
    compat = "i386 read:" in done.stdout
    found = set(done.stdout.splitlines())
    assert found == lines(refusal="EFAULT", inside=0, plain=False, compat=compat)


@pytest.mark.parametrize("mode", MODES)
def test_a_crowd_that_is_interrupted(host: Host, claimed: Path, program: Path, mode: str) -> None:
    command = [program, "-t", "8", CLAIMED]
    done = host("run", "-q", *MODES[mode], claimed, "--", *command, timeout=60 * SOAK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrong: 0\n", "")


KILLED = """
import signal, subprocess, sys
program, border = sys.argv[1:]
for round in range({rounds}):
    crowd = subprocess.Popen([program, "-t", "8", border])
    try:
        crowd.wait(0.02 + 0.005 * (round % 8))
    except subprocess.TimeoutExpired:
        crowd.kill()
    assert crowd.wait(10) in (0, -signal.SIGKILL)
"""


def test_callers_that_are_killed_in_the_middle(host: Host, claimed: Path, program: Path) -> None:
    script = KILLED.format(rounds=20 * SOAK)
    after = f'python3 -c "$1" {program} {CLAIMED} && exec {program} -t 1 {CLAIMED}'
    done = host.run(claimed, "sh", "-c", after, "sh", script, timeout=60 * SOAK)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "wrong: 0"
