"""All functions that physically exist, and the way an access takes to one of them.

The topology is that of the bus numbers at the time a function is added: a bridge leads to its
secondary bus. Configuration accesses reach a function when every bridge above it is plugged in and
its link is up. Memory and ports reach a BAR when the function decodes them and every bridge above
forwards them, by command register and windows, as on a bus.

Nothing here locks: the caller holds the machine's lock. The caller also makes sure that no file
caches the pages that a write moves: `plan_config_write` names them before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from fakedev.devices.pci import header
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.config import EXTENDED
from fakedev.devices.pci.decoding import Decoder, Windows, difference
from fakedev.devices.pci.errors import PciError
from fakedev.devices.pci.function import Function
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import Range
from fakedev.model.snapshot import Snapshot


class Fabric:
    """The functions of all domains; maps their BARs into `memory` and `port_space`.

    `moved` is called with every range of memory whose decoding changed, after it did; `failed` with
    what a model raised when it was told of a reset, which the reset does not care about. Without
    `failed` it is raised.
    """

    def __init__(
        self,
        functions: Iterable[Function],
        memory: PhysicalMemory,
        port_space: PhysicalMemory,
        *,
        moved: Callable[[Range], None] | None = None,
    ) -> None:
        self.memory = memory
        self.port_space = port_space
        self.moved = moved
        self.failed: Callable[[Function, Exception], None] | None = None
        self.functions: dict[Bdf, Function] = {}
        self._decoder = Decoder(memory, port_space)
        self._by_bus: dict[tuple[int, int], list[Function]] = {}
        self._bridges: dict[tuple[int, int], Function] = {}
        self._boot: list[tuple[PhysicalMemory, Snapshot]] = []
        self._link(functions)

    def _link(self, functions: Iterable[Function]) -> None:
        for function in sorted(functions, key=lambda f: f.bdf):
            bdf = function.bdf
            if bdf in self.functions:
                raise PciError(f"{bdf}: two functions at one address")
            self.functions[bdf] = function
            self._by_bus.setdefault((bdf.domain, bdf.bus), []).append(function)
            if function.is_bridge and function.secondary > bdf.bus:
                self._bridges.setdefault((bdf.domain, function.secondary), function)

    def add(self, function: Function) -> None:
        """Add one more function; `decode` maps it. PciError when its address is taken."""
        if function.bdf in self.functions:
            raise PciError(f"{function.bdf}: two functions at one address")
        functions = [*self.functions.values(), function]
        self.functions, self._by_bus, self._bridges = {}, {}, {}
        self._link(functions)

    # Topology

    def at(self, bdf: Bdf) -> Function | None:
        """Return the function that answers at an address; None where nothing does."""
        function = self.functions.get(bdf)
        if function is None or not function.present:
            return None
        return function if all(b.present and b.link_up for b in self._above(bdf)) else None

    def upstream(self, bdf: Bdf) -> Function | None:
        """Return the bridge whose secondary bus an address is on; None on a root bus."""
        return self._bridges.get((bdf.domain, bdf.bus))

    def on_bus(self, domain: int, bus: int) -> list[Function]:
        """Return the functions on one bus, by address, plugged in or not."""
        return list(self._by_bus.get((domain, bus), ()))

    def below(self, bdf: Bdf) -> list[Function]:
        """Return the whole subtree behind a bridge, each bridge before what is behind it."""
        function = self.functions.get(bdf)
        found: list[Function] = []
        if function is not None and function.is_bridge:
            buses = [key for key, bridge in self._bridges.items() if bridge is function]
            for child in chain.from_iterable(self._by_bus.get(key, ()) for key in buses):
                found.append(child)
                found.extend(self.below(child.bdf))
        return found

    def roots(self) -> list[tuple[int, int]]:
        """Return domain and number of each bus that no bridge leads to."""
        return sorted(key for key in self._by_bus if key not in self._bridges)

    def _above(self, bdf: Bdf) -> Iterator[Function]:
        bridge = self._bridges.get((bdf.domain, bdf.bus))
        while bridge is not None:
            yield bridge
            bridge = self._bridges.get((bdf.domain, bridge.bdf.bus))

    # Configuration accesses

    def config_read(self, bdf: Bdf, offset: int, size: int) -> bytes:
        """Return `size` bytes of configuration space; all-ones where no function answers."""
        function = self.at(bdf)
        return b"\xff" * size if function is None else function.config_read(offset, size)

    def config_write(self, bdf: Bdf, offset: int, data: bytes) -> None:
        """Write in aligned pieces of 1, 2 and 4 bytes (pci_write_config); then remap what moved.

        Without a function the bytes are lost, as are those behind 4096. The exception of a model
        stops the write, but what was written is decoded.
        """
        function = self.at(bdf)
        if function is None:
            return
        try:
            for at, piece in pieces(offset, data[: max(EXTENDED - offset, 0)]):
                function.config_write(at, piece)
        finally:
            if function.moves(offset, len(data)):
                self.decode(function)

    def plan_config_write(self, bdf: Bdf, offset: int, data: bytes) -> list[Range]:
        """Return the memory that a write would move, old places and new ones, without doing it."""
        function = self.at(bdf)
        if function is None or not function.moves(offset, len(data)):
            return []
        scratch = function.config.scratch()
        for at, piece in pieces(offset, data[: max(EXTENDED - offset, 0)]):
            function.apply(scratch, at, piece)
        after = {bdf: scratch.data}
        moved: list[Range] = []
        for member in self._family(function):
            moved += difference(self.decoded(member.bdf), self._reach(member, after))
        return moved

    # Decoding

    def decode(self, function: Function) -> list[Range]:
        """Map what a function and those behind it decode now; return the memory that changed."""
        return self._remap({f.bdf: self._reach(f) for f in self._family(function)})

    def decode_all(self) -> None:
        """Map everything, as at boot."""
        self._remap({bdf: self._reach(f) for bdf, f in self.functions.items()})

    def undecode(self, function: Function) -> list[Range]:
        """Take away what a function and those behind it decode, whatever their registers say."""
        return self._remap({f.bdf: () for f in self._family(function)})

    def decoded(self, bdf: Bdf) -> Windows:
        """Return the windows of a function that are mapped."""
        return self._decoder.mapped(bdf)

    def _family(self, function: Function) -> list[Function]:
        return [function, *self.below(function.bdf)] if function.is_bridge else [function]

    def _reach(self, function: Function, after: Mapping[Bdf, bytearray] | None = None) -> Windows:
        """What of its windows gets through to a function, with other registers in `after`."""
        changed = after or {}
        windows = function.windows(changed.get(function.bdf))
        for bridge in self._above(function.bdf) if windows else ():
            data = changed.get(bridge.bdf, bridge.config.data)
            if not (bridge.present and bridge.link_up_in(data)):
                return ()
            windows = [w for w in windows if header.forwards(data, w.kind, w.start, w.size)]
        return tuple(windows)

    def _remap(self, wanted: Mapping[Bdf, Windows]) -> list[Range]:
        moved = self._decoder.remap(wanted)
        if self.moved is not None:
            for span in moved:
                self.moved(span)
        return moved

    # Physical events

    def unplug(self, function: Function) -> list[Range]:
        """Take a function out, with everything behind it; return the memory that changed.

        Nothing answers there afterwards. Where `on_unplug` is "all-ones", reads of the old places
        give ones until something else decodes them, also in a machine whose bus reads zeros.
        """
        family = [f for f in self._family(function) if f.present]
        places = {f.bdf: self.decoded(f.bdf) for f in family if f.on_unplug == "all-ones"}
        for member in family:
            member.present = False
        moved = self.decode(function)
        for bdf, windows in places.items():
            self._decoder.haunt(bdf, windows)
        self._tell_slot(function, present=False)
        return moved

    def plug(self, function: Function) -> list[Range]:
        """Put a function back, with everything behind it: powered on, BARs and command cleared.

        Bridges come back with the bus numbers and windows of boot. Returns the memory that changed.
        """
        self._decoder.lay_ghosts(f.bdf for f in self._family(function))
        for member in self._family(function):
            member.present = True
            numbers = member.config.boot(header.PRIMARY, 3)
            windows = member.config.boot(header.IO_BASE, header.CAPABILITIES - header.IO_BASE)
            self._guarded(member, member.power_on)
            if member.is_bridge:
                member.config.set(header.PRIMARY, numbers)
                member.config.set(header.IO_BASE, windows)
        moved = self.decode(function)
        self._tell_slot(function, present=True)
        return moved

    def reset_function(self, function: Function) -> list[Range]:
        """Reset a function as the kernel does it; return the memory that changed."""
        self._guarded(function, function.reset)
        return self.decode(function)

    def _guarded(self, function: Function, reset: Callable[[], None]) -> None:
        try:
            reset()
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(function, error)

    def set_link(self, port: Function, *, up: bool) -> list[Range]:
        """Bring the link below a port up or down; return the memory that changed."""
        port.set_link(up=up)
        return self.decode(port)

    def _tell_slot(self, function: Function, *, present: bool) -> None:
        port = self.upstream(function.bdf)
        neighbours = self.on_bus(function.bdf.domain, function.bdf.bus)
        if port is not None and any(f.present for f in neighbours) == present:
            port.set_presence(present=present)

    # Boot state

    def freeze(self) -> None:
        """Remember this moment for `reset`: registers, and the memory behind BARs."""
        for _, snapshot in self._boot:
            snapshot.close()
        self._boot = []
        for function in self.functions.values():
            function.freeze()
            for bar in function.bars.values():
                if isinstance(bar.target, PhysicalMemory):
                    self._boot.append((bar.target, bar.target.snapshot()))

    def reset(self) -> list[Range]:
        """Go back to the moment of `freeze`: everything is plugged in again; returns what moved."""
        self._decoder.lay_ghosts(self.functions)
        for function in self.functions.values():
            function.present = function.link_trained = True
            self._guarded(function, function.power_on)
            function.config.reset()
        for memory, snapshot in self._boot:
            memory.restore(snapshot)
        return self._remap({bdf: self._reach(f) for bdf, f in self.functions.items()})


def pieces(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut an access as pci_write_config does: a byte, a word, dwords, a word, a byte."""
    end = offset + len(data)
    at = offset
    while at < end:
        width = 1 if at & 1 or end - at < 2 else 2 if at & 2 or end - at < 4 else 4
        yield at, bytes(data[at - offset : at - offset + width])
        at += width
