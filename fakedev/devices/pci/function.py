"""One function: its configuration space, its BARs, and what it decodes."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, NamedTuple, Protocol

from fakedev.devices.pci import express, header
from fakedev.devices.pci.bars import Bar
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.config import ConfigSpace
from fakedev.devices.pci.errors import PciError

OnUnplug = Literal["sigbus", "all-ones", "poison"]

CAP_PM, CAP_PCIE = 0x01, 0x10
_PM_CONTROL, _PM_STATE = 4, 3


class DecodedWindow(NamedTuple):
    """`size` bytes from `start` on, of memory ("mem") or ports ("io"), that a BAR answers for."""

    bar: Bar
    kind: Literal["io", "mem"]
    start: int
    size: int


class ConfigModel(Protocol):
    """Behaviour in Python behind a configuration space. What it raises reaches the caller.

    A model, or a BAR's target, with a method `reset()` is told when the function is reset.
    """

    def config_written(self, function: "Function", offset: int, size: int) -> None:
        """After a write of 1, 2 or 4 aligned bytes took effect."""


class Function:
    """A function that physically exists, plugged in or not.

    The header type byte of `config` must be set. `freeze` ends the making of it.
    """

    __slots__ = (
        "_capabilities",
        "_sensitive",
        "bars",
        "bdf",
        "config",
        "link_trained",
        "model",
        "name",
        "on_unplug",
        "present",
        "reset_methods",
        "slot",
    )

    def __init__(
        self,
        bdf: Bdf,
        config: ConfigSpace,
        bars: Iterable[Bar] = (),
        *,
        on_unplug: OnUnplug = "all-ones",
        slot: str | None = None,
        reset_methods: Iterable[str] = (),
        name: str = "",
        model: ConfigModel | None = None,
    ) -> None:
        self.bdf = bdf
        self.config = config
        self.on_unplug = on_unplug
        self.slot = slot
        self.reset_methods = tuple(reset_methods)
        self.name = name
        self.model = model
        self.present = True
        self.link_trained = True
        self._capabilities: dict[int, int] | None = None
        self._sensitive: tuple[tuple[int, int], ...] = ()
        header.declare_header(config)
        self.bars = _install(bdf, config, bars)

    # What it is

    @property
    def header_type(self) -> int:
        """0 for a device, 1 for a bridge."""
        return header.header_type(self.config)

    @property
    def is_bridge(self) -> bool:
        """True when a bus lies behind it."""
        return self.header_type == 1

    @property
    def secondary(self) -> int:
        """The bus right behind a bridge."""
        return self.config.data[header.SECONDARY]

    @property
    def subordinate(self) -> int:
        """The last bus behind a bridge."""
        return self.config.data[header.SUBORDINATE]

    @property
    def port_type(self) -> int | None:
        """The PCIe device/port type (4 is a root port); None without a PCIe capability."""
        at = self.capability(CAP_PCIE)
        return None if at is None else express.port_type(self.config.data, at)

    @property
    def hotplug_port(self) -> bool:
        """True for a port whose slot can be plugged and unplugged while the machine runs (HPC)."""
        at = self.capability(CAP_PCIE)
        return at is not None and express.hotplug(self.config, at)

    @property
    def link_up(self) -> bool:
        """True unless the link below this port is down, or disabled in its link control."""
        return self.link_up_in(self.config.data)

    def link_up_in(self, data: bytes | bytearray) -> bool:
        """Same as `link_up`, with another content of the configuration space."""
        at = self.capability(CAP_PCIE)
        return self.link_trained and (at is None or not express.link_disabled(data, at))

    @property
    def power_state(self) -> int:
        """0 to 3 for D0 to D3hot; 0 without a power management capability."""
        at = self.capability(CAP_PM)
        return 0 if at is None else self.config.data[at + _PM_CONTROL] & _PM_STATE

    def capability(self, number: int) -> int | None:
        """Offset of the first standard capability with that number (pci_find_capability)."""
        if self._capabilities is None:
            self._capabilities = dict(reversed(list(header.walk(self.config.data))))
        return self._capabilities.get(number)

    # What it decodes

    def windows(self, data: bytes | bytearray | None = None) -> list[DecodedWindow]:
        """Return what its BARs answer for, with this content of the configuration space or its own.

        Nothing when it is not plugged in, or asleep (D1 to D3).
        """
        config = self.config.data if data is None else data
        if not self.present:
            return []
        power = self.capability(CAP_PM)
        if power is not None and config[power + _PM_CONTROL] & _PM_STATE:
            return []
        found = []
        for bar in self.bars.values():
            start = bar.decoded(config)
            if start is not None:
                found.append(DecodedWindow(bar, bar.kind, start, bar.size))
        return found

    def moves(self, offset: int, size: int) -> bool:
        """True when a write there can change what this function or those behind it decode."""
        if not self._sensitive:
            self._sensitive = tuple(self._registers())
        end = offset + size
        return any(offset < high and low < end for low, high in self._sensitive)

    def _registers(self) -> Iterator[tuple[int, int]]:
        yield header.COMMAND, header.COMMAND + 2
        yield header.BARS, header.SUBSYSTEM if self.header_type == 0 else header.CAPABILITIES
        rom = header.BRIDGE_ROM if self.is_bridge else header.ROM
        yield rom, rom + 4
        power, pcie = self.capability(CAP_PM), self.capability(CAP_PCIE)
        if power is not None:
            yield power + _PM_CONTROL, power + _PM_CONTROL + 1
        if pcie is not None:
            yield pcie + express.DEVICE_CONTROL + 1, pcie + express.DEVICE_CONTROL + 2
            yield pcie + express.LINK_CONTROL, pcie + express.LINK_CONTROL + 1

    # Accesses

    def config_read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes; zeros behind the end of a conventional space."""
        return self.config.read(offset, size).ljust(size, b"\0")

    def config_write(self, offset: int, data: bytes) -> None:
        """Write 1, 2 or 4 aligned bytes, then tell the model. Its exceptions go through."""
        self.apply(self.config, offset, data)
        if self.model is not None:
            self.model.config_written(self, offset, len(data))

    def apply(self, config: ConfigSpace, offset: int, data: bytes) -> None:
        """Do to `config` what a write does to this function, a function level reset included."""
        config.write(offset, data)
        at = self.capability(CAP_PCIE)
        if at is not None and express.starts_reset(config, at, offset, data):
            self._forget(config)

    # Resets

    def freeze(self) -> None:
        """Remember the configuration space: the state after the firmware ran."""
        self.config.freeze()

    def reset(self) -> None:
        """Reset as the kernel does it: state is lost, what it saves and restores comes back.

        The header with command, BARs and bus numbers stays, capabilities go back to boot
        (pci_save_state and pci_restore_state around the reset).
        """
        kept = bytes(self.config.data[: header.SIZE])
        try:
            self.power_on()
        finally:
            self.config.set(0, kept)

    def power_on(self) -> None:
        """Reset as the hardware does it: command, BARs and bridge registers are cleared.

        What a model raises goes through when everything has been reset.
        """
        self._forget(self.config)
        raised: Exception | None = None
        for part in (*(bar.target for bar in self.bars.values()), self.model):
            reset = getattr(part, "reset", None)
            if reset is not None:
                try:
                    reset()
                except Exception as error:  # noqa: BLE001 - models are other people's code
                    raised = raised or error
        if raised is not None:
            raise raised

    def _forget(self, config: ConfigSpace) -> None:
        config.reset()
        config.put(header.COMMAND, 2, 0)
        config.put(header.INTERRUPT_LINE, 1, 0)
        for bar in self.bars.values():
            config.put(bar.register, bar.register_size, bar.low_bits)
        if self.is_bridge:
            config.put(header.PRIMARY, 3, 0)
            header.set_io_window(config, None)
            header.set_memory_window(config, None)
            header.set_prefetch_window(config, None)

    # The slot and the link of a port

    def set_link(self, *, up: bool) -> None:
        """Bring the link below this port up or down; its status registers follow."""
        self.link_trained = up
        at = self.capability(CAP_PCIE)
        if at is not None:
            express.set_link(self.config, at, up=up)

    def set_presence(self, *, present: bool) -> None:
        """Say in the slot status of this port that a card is there or is not."""
        at = self.capability(CAP_PCIE)
        if at is not None:
            express.set_presence(self.config, at, present=present)

    def __repr__(self) -> str:
        return f"Function({self.bdf}{f' {self.name}' if self.name else ''})"


def _install(bdf: Bdf, config: ConfigSpace, bars: Iterable[Bar]) -> dict[int, Bar]:
    bridge = header.header_type(config) == 1
    installed: dict[int, Bar] = {}
    taken: dict[int, Bar] = {}
    for given in bars:
        bar = replace(given, bridge=bridge) if given.bridge != bridge else given
        for register in range(bar.register, bar.register + bar.register_size, 4):
            if register in taken:
                raise PciError(f"{bdf}: {bar.name} and {taken[register].name} share a register")
            taken[register] = bar
        bar.install(config)
        installed[bar.index] = bar
    return dict(sorted(installed.items()))
