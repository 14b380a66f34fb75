"""Addresses, sizes and ranges as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakedev.model.errors import RangeError
from fakedev.model.ranges import Range, page_round, parse_number, parse_range


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("0xd810_0000", 0xD8100000),
        ("0x1000", 4096),
        ("64K", 65536),
        ("16 MiB", 16 << 20),
        ("1G", 1 << 30),
    ],
)
def test_numbers(text: str, value: int) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "d8100000", "0x", "-1", "1.5G", "64Q", "0x10000000000000001", "0x_", "1__0", "9" * 5000],
)
def test_not_numbers(text: str) -> None:
    with pytest.raises(RangeError):
        parse_number(text)


def test_a_bare_hexadecimal_number_is_told_about_0x() -> None:
    with pytest.raises(RangeError, match="0xd8100000"):
        parse_number("d8100000")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0xd8100000+64K", Range(0xD8100000, 65536)),
        ("d8100000-d810ffff", Range(0xD8100000, 65536)),
        ("0xd8100000 - 0xd810ffff", Range(0xD8100000, 65536)),
        ("00000000-ffffffffffffffff", Range(0, 1 << 64)),
    ],
)
def test_ranges(text: str, span: Range) -> None:
    assert parse_range(text) == span


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2000-1000", "before the start"),
        ("0x1000+0", "empty"),
        ("0xffffffffffffffff+2", "beyond 64 bits"),
        ("0x1000", "not a range"),
        ("zz-100", "hexadecimal"),
    ],
)
def test_not_ranges(text: str, words: str) -> None:
    with pytest.raises(RangeError, match=words):
        parse_range(text)


@given(st.integers(0, (1 << 64) - 1), st.integers(1, 1 << 40))
def test_what_is_printed_reads_back(start: int, size: int) -> None:
    span = Range(start, min(size, (1 << 64) - start))
    assert parse_range(str(span)) == span
    rounded = page_round(span)
    assert rounded.start <= span.start
    assert rounded.end >= span.end
