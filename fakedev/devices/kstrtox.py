"""Numbers as the kernel reads them out of a text (`lib/kstrtox.c`)."""

import re

_UNSIGNED = re.compile(r"\+?(?:0x([0-9a-f]+)|(0[0-7]*)|([1-9][0-9]*))\n?", re.IGNORECASE | re.ASCII)
_LONGEST = 64  # digits of a number that is too large in any case


def unsigned(text: str) -> int | None:
    """`kstrtoull` with base 0: `12`, `0x0c`, `014`, one newline behind it. None: not a number (EINVAL).

    The number may be too large for 64 bits: that is the caller's ERANGE.
    """
    match = _UNSIGNED.fullmatch(text)
    if match is None:
        return None
    hexadecimal, octal, decimal = match.groups()
    if hexadecimal:
        return int(hexadecimal, 16)
    return int(octal, 8) if octal else int(decimal[:_LONGEST])
