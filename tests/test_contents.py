import struct
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakedev.model.contents import (
    ZERO,
    AddressPattern,
    BytePattern,
    Content,
    RandomContent,
    RawBytes,
)
from fakedev.model.errors import MemoryLayoutError

TOP = 1 << 64
CONTENTS = [
    ZERO,
    BytePattern(b"\xde\xad\xbe\xef\x01"),
    AddressPattern(),
    RandomContent(7),
    RawBytes(b"hello"),
]


@pytest.mark.parametrize("content", CONTENTS, ids=str)
@given(
    origin=st.integers(0, TOP - 200),
    cuts=st.lists(st.integers(0, 200), min_size=2, max_size=2).map(sorted),
)
@example(origin=TOP - 200, cuts=[200, 200])
def test_a_part_made_alone_equals_the_part_of_the_whole(content: Content, origin, cuts):
    low, high = cuts
    whole = content.generate(origin, 200, origin=origin)
    assert len(whole) == 200
    assert content.generate(origin + low, high - low, origin=origin) == whole[low:high]


@given(start=st.integers(0, TOP - 64), size=st.integers(0, 64))
def test_address_pattern_holds_its_own_address(start, size):
    first = start & ~7
    words = b"".join(struct.pack("<Q", a) for a in range(first, min(start + 72, TOP), 8))
    expected = words[start - first :][:size]
    assert AddressPattern().generate(start, size, origin=0) == expected


def splitmix64(state):
    z = (state + 0x9E3779B97F4A7C15) % TOP
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % TOP
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % TOP
    return z ^ (z >> 31)


def test_the_reference_generator_is_splitmix64():
    # The first outputs of the published generator for the seed 1234567.
    gamma = 0x9E3779B97F4A7C15
    assert [splitmix64(1234567 + n * gamma) for n in range(2)] == [
        6457827717110365317,
        3203168211198807973,
    ]


@pytest.mark.parametrize("seed", [0, 1, 7, -1, TOP + 7])
@pytest.mark.parametrize("address", [0, 8, 0x1000, TOP - 8])
def test_random_is_a_counter_in_splitmix64(seed, address):
    gamma = 0x9E3779B97F4A7C15
    base = splitmix64((seed - gamma) % TOP)
    word = splitmix64(base + address // 8 * gamma)
    assert RandomContent(seed).generate(address, 8, origin=0) == struct.pack("<Q", word)


def test_random_differs_by_seed_and_looks_like_noise():
    one, two = (RandomContent(seed).generate(0, 1 << 16, origin=0) for seed in (1, 2))
    assert one != two
    assert 120 < sum(one) / len(one) < 135
    assert len(set(one)) == 256


def test_a_long_byte_pattern_keeps_its_phase():
    pattern = BytePattern(bytes(range(256)) * 40)
    assert pattern.generate(10239, 3, origin=0) == b"\xff\x00\x01"
    with pytest.raises(MemoryLayoutError, match="at least one byte"):
        BytePattern(b"")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (ZERO, "zero"),
        (AddressPattern(), "address"),
        (RandomContent(7), "random seed 7"),
        (BytePattern(b"\xde\xad"), "pattern de ad"),
        (BytePattern(bytes(9)), "pattern 00 00 00 00 00 00 00 00 ..."),
        (RawBytes(b"abc"), "bytes 3"),
    ],
)
def test_contents_describe_themselves(content, text):
    assert str(content) == text


def test_memory_without_patterns_never_imports_numpy():
    code = (
        "import sys; from fakedev.model.memory import PhysicalMemory; m = PhysicalMemory();"
        "m.add(0, 1 << 40); s = m.snapshot(); m.write(5, b'x'); m.read(0, 99); m.restore(s);"
        "assert list(m.find(b'x')) == []; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
