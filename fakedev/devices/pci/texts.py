"""Resources as the kernel's log prints them (`%pR`), and sets of CPUs."""

from functools import cache

from fakedev.model.flags import (
    IORESOURCE_DISABLED,
    IORESOURCE_IO,
    IORESOURCE_MEM_64,
    IORESOURCE_PREFETCH,
    IORESOURCE_UNSET,
)

_GROUP = 32


def resource_text(start: int, end: int, flags: int) -> str:
    """`[mem 0xfb000000-0xfbffffff 64bit pref]`, `[io  0xd100-0xd13f]`, `[mem size 0x1000]`."""
    io = bool(flags & IORESOURCE_IO)
    kind, digits = ("io ", 4) if io else ("mem", 8)
    if flags & IORESOURCE_UNSET:
        where = f"size {end - start + 1:#0{digits + 2}x}"
    else:
        where = f"{start:#0{digits + 2}x}-{end:#0{digits + 2}x}"
    text = f"[{kind} {where}"
    for bit, word in (
        (IORESOURCE_MEM_64, "64bit"),
        (IORESOURCE_PREFETCH, "pref"),
        (IORESOURCE_DISABLED, "disabled"),
    ):
        if flags & bit:
            text += f" {word}"
    return text + "]"


def resource_name(index: int) -> str:
    """`BAR 0`, `ROM`, `bridge window`: what the log calls resource `index`."""
    if index < 6:
        return f"BAR {index}"
    return "ROM" if index == 6 else "bridge window"


@cache
def cpu_mask(cpus: str) -> str:
    """`local_cpus` for a list such as `0-3,8`: hexadecimal, in groups of 32 bits, as wide as the last CPU."""
    mask = 0
    for part in cpus.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            low, high = int(first), int(last or first)
            mask |= (1 << high + 1) - (1 << low)
    bits = max(mask.bit_length(), 1)
    top = (bits - 1) // _GROUP
    words = [f"{mask >> top * _GROUP:0{(bits - top * _GROUP + 3) // 4}x}"]
    words += [f"{mask >> _GROUP * at & 0xFFFFFFFF:08x}" for at in reversed(range(top))]
    return ",".join(words)
