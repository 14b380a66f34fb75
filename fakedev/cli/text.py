"""Bytes as people read and write them, and words that several commands say."""

from fakedev.model.errors import RangeError
from fakedev.model.ranges import parse_number

_WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


def hex_dump(start: int, data: bytes) -> str:
    """Addresses, sixteen bytes a line, and the text, as `hexdump -C` prints them."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        left = " ".join(f"{byte:02x}" for byte in row[:8])
        right = " ".join(f"{byte:02x}" for byte in row[8:])
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{start + at:08x}  {left:23}  {right:23}  |{text}|")
    return "\n".join(lines)


def under_lockdown(level: str) -> str:
    """What a verdict on a range leaves out: `/dev/mem` has to be open already."""
    return f"lockdown={level}: open of /dev/mem is EPERM; the verdict is for one opened before"


def parse_bytes(words: list[str]) -> bytes:
    """Bytes from words: `de ad`, `deadbeef`, `u32:0x12345678` (little endian), `text:HELLO`."""
    return b"".join(_word(word) for word in words)


def _word(word: str) -> bytes:
    kind, colon, value = word.partition(":")
    if colon and kind == "text":
        return value.encode()
    if colon and kind in _WIDTHS:
        number, width = parse_number(value), _WIDTHS[kind]
        if number >= 1 << 8 * width:
            raise RangeError(f"{value} does not fit in {width} bytes")
        return number.to_bytes(width, "little")
    try:
        return bytes.fromhex(word)
    except ValueError:
        raise RangeError(
            f"not bytes: {word!r}; write hex pairs in memory order (de ad be ef), u32:0x12345678 or text:HELLO"
        ) from None
