"""Zones of each node, and which of them a block goes to when it is onlined (`mm/memory_hotplug.c`).

A zone spans everything between its first and its last block, so what lies between may belong to
other zones; `default_zone_for_pfn` looks at spans only, and so does this.
"""

from bisect import bisect_left, insort

from fakedev.model.ranges import ADDRESS_LIMIT

MOVABLE = "Movable"
NORMAL = "Normal"
NO_ZONE = "none"
"""What a block has that lies in several zones; it can never go offline."""
KINDS = ("online", "online_kernel", "online_movable")

_BOUNDS: dict[str, tuple[tuple[str, int], ...]] = {
    "x86_64": (("DMA", 16 << 20), ("DMA32", 4 << 30), (NORMAL, ADDRESS_LIMIT)),
    "aarch64": (("DMA", 4 << 30), (NORMAL, ADDRESS_LIMIT)),
    "riscv64": (("DMA32", 4 << 30), (NORMAL, ADDRESS_LIMIT)),
}


class Zones:
    """Which blocks, by number, each zone of each node holds.

    `movable_node`: the kernel was booted with `movable_node`, hot-plugged memory is Movable.
    """

    def __init__(self, arch: str, *, movable_node: bool = False) -> None:
        self._bounds = _BOUNDS[arch]
        self._movable_node = movable_node
        self._members: dict[tuple[int, str], list[int]] = {}

    @property
    def names(self) -> list[str]:
        """Every zone that the architecture has, in the kernel's order."""
        return [name for name, _ in self._bounds] + [MOVABLE]

    def at_boot(self, start: int, end: int) -> tuple[str, ...]:
        """The zones that a range of RAM lies in at boot."""
        bounds = self._bounds
        index = 0
        while bounds[index][1] <= start:
            index += 1
        low = index
        while bounds[index][1] < end:
            index += 1
        return tuple([name for name, _ in bounds[low : index + 1]])

    def add(self, nid: int, zone: str, number: int) -> None:
        """A block joins a zone."""
        members = self._members.setdefault((nid, zone), [])
        if not members or members[-1] < number:  # at boot they come in order
            members.append(number)
        else:
            insort(members, number)

    def discard(self, nid: int, zone: str, number: int) -> None:
        """A block leaves a zone; its span shrinks if it was the first or the last."""
        members = self._members.get((nid, zone), [])
        at = bisect_left(members, number)
        if at < len(members) and members[at] == number:
            del members[at]

    def spans(self, nid: int, zone: str, number: int) -> bool:
        """Tell whether a block lies between the first and the last of a zone (`zone_intersects`)."""
        members = self._members.get((nid, zone), [])
        return bool(members) and members[0] <= number <= members[-1]

    def choose(self, nid: int, number: int, kind: str = "online") -> str:
        """The zone that onlining a block puts it in: `zone_for_pfn_range`."""
        kernel = self._kernel(nid, number)
        if kind == "online_kernel":
            return kernel
        if kind == "online_movable":
            return MOVABLE
        inside = self.spans(nid, kernel, number)
        if inside != self.spans(nid, MOVABLE, number):
            return kernel if inside else MOVABLE
        return MOVABLE if self._movable_node else kernel

    def _kernel(self, nid: int, number: int) -> str:
        """`default_kernel_zone_for_pfn`."""
        for name, _ in self._bounds:
            if self.spans(nid, name, number):
                return name
        return NORMAL

    def candidates(self, nid: int, number: int) -> list[str]:
        """`valid_zones` of an offline block: the default zone first."""
        return list(dict.fromkeys(self.choose(nid, number, kind) for kind in KINDS))
