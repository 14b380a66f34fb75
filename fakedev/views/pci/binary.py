"""Binary files of a function: `config`, `resourceN` of I/O BARs, `rom`, `vpd`."""

import errno
from collections.abc import Callable

from fakedev.devices.pci.device import ROM, PciDevice
from fakedev.model.errors import FakedevError
from fakedev.model.flags import IORESOURCE_ROM_SHADOW
from fakedev.model.lockdown import LOCKDOWN_PCI_ACCESS
from fakedev.model.machine import Machine
from fakedev.views.calls import Answer, MapCall
from fakedev.views.live import BinaryFile, BinaryHandle
from fakedev.views.lockdown import check_lockdown
from fakedev.views.node import CAP_SYS_ADMIN, Handle, Opener, Refused
from fakedev.views.pci.resource import removed
from fakedev.views.pci.subject import Subject

_HEADER, _CARDBUS_HEADER, _CARDBUS = 64, 128, 2
_SIGNATURE = b"\x55\xaa"
_STRUCTURE = b"PCIR"
_LAST_IMAGE = 0x80
_IO_WIDTHS = (1, 2, 4)
_VPD_DONE = _VPD_SPACE = 0x8000


def visible_size(device: PciDevice, opener: Opener) -> int:
    """How much of the configuration an opener may read: all with CAP_SYS_ADMIN, else the header."""
    if opener.capable(CAP_SYS_ADMIN):
        return device.function.config.size
    return _CARDBUS_HEADER if device.function.header_type == _CARDBUS else _HEADER


class guarded:  # noqa: N801 - used like a function
    """What a device's model raises becomes EIO for the tool, and an event that names the model."""

    __slots__ = ("_device", "_machine")

    def __init__(self, machine: Machine, device: PciDevice) -> None:
        self._machine = machine
        self._device = device

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        model = self._device.function.model
        if model is None or not isinstance(error, Exception):
            return
        if not isinstance(error, Refused | FakedevError):
            name = f"{type(model).__module__}.{type(model).__qualname__}"
            self._machine.record(
                "error", f"{self._device.name}: {name} raised {type(error).__name__}: {error}"
            )
            raise Refused(errno.EIO) from error


class ConfigFile(BinaryFile):
    """`config`: the whole space for a privileged opener, the header for others (`pci_read_config`)."""

    __slots__ = ("_bus", "_device", "_machine")

    def __init__(self, subject: Subject) -> None:
        device = subject.device
        size = device.function.config.size
        super().__init__(mode=0o644, size=size, alive=subject.alive, verb=True, settles=True)
        self._machine = subject.machine
        self._bus = subject.bus
        self._device = device

    def open(self, opener: Opener) -> Handle:
        self.check_open(opener)
        return BinaryHandle(self, opener.as_of_now())

    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        size = min(size, visible_size(self._device, opener) - offset)
        if size <= 0:
            return b""
        self._bus.settle_config(self._device)
        with guarded(self._machine, self._device), self._machine.lock:
            return self._bus.config_read(self._device, offset, size)

    def save(self, offset: int, data: memoryview, opener: Opener) -> int:
        check_lockdown(self._machine, LOCKDOWN_PCI_ACCESS, opener.pid)
        with guarded(self._machine, self._device):
            self._bus.config_write(self._device, offset, bytes(data))
        return len(data)


class IoResourceFile(BinaryFile):
    """`resourceN` of an I/O BAR: 1, 2 or 4 bytes a call go to the ports (`pci_resource_io`)."""

    __slots__ = ("_device", "_machine", "_start")

    def __init__(self, subject: Subject, index: int) -> None:
        resource = subject.device.resources[index]
        super().__init__(mode=0o600, size=resource.size, alive=subject.alive)
        self._device = subject.device
        self._machine = subject.machine
        self._start = resource.start

    def driver_mmap(self, call: MapCall) -> Answer | None:
        """No mmap operation; from 7.2 on one that has nothing to map (`arch_can_pci_mmap_io`)."""
        rules = self._machine.rules
        if rules.io_bar_mmap_errno == errno.ENODEV:
            return self.kind.mmap
        if self._device.gone:
            return removed("kernfs_fop_mmap", self._device)
        if rules.locked_down(LOCKDOWN_PCI_ACCESS.level):
            return Answer(-errno.EPERM, "pci_mmap_resource: security_locked_down")
        return Answer(-rules.io_bar_mmap_errno, "pci_mmap_resource: no I/O BAR can be mapped")

    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        _check_width(size)
        with self._machine.lock:
            return self._machine.port_space.read(self._start + offset, size)

    def save(self, offset: int, data: memoryview, opener: Opener) -> int:
        check_lockdown(self._machine, LOCKDOWN_PCI_ACCESS, opener.pid)
        _check_width(len(data))
        with self._machine.lock:
            self._machine.port_space.write(self._start + offset, data)
        return len(data)


def _check_width(size: int) -> None:
    if size not in _IO_WIDTHS:
        raise Refused(errno.EINVAL)


class RomFile(BinaryFile):
    """`rom`: after a write of 1, the image that the ROM holds, without the space behind it."""

    __slots__ = ("_subject",)

    def __init__(self, subject: Subject) -> None:
        size = subject.device.resources[ROM].size
        super().__init__(mode=0o600, size=size, alive=subject.alive, verb=True)
        self._subject = subject

    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        """`pci_read_rom`: EINVAL before it is enabled, EIO without a valid image."""
        if not self._subject.device.rom_enabled:
            raise Refused(errno.EINVAL)
        image = image_size(self._window)
        if not image:
            raise Refused(errno.EIO)
        return self._window(offset, min(size, image - offset)) if offset < image else b""

    def save(self, offset: int, data: memoryview, opener: Opener) -> int:
        self._subject.bus.set_rom(self._subject.device, bytes(data).decode("latin-1"))
        return len(data)

    def _window(self, offset: int, size: int) -> bytes:
        """What decodes while the kernel reads it: the ROM, or its shadow in memory."""
        subject = self._subject
        resource = subject.device.resources[ROM]
        size = min(size, self.size - offset)
        with subject.machine.lock:
            if resource.bar is None or resource.flags & IORESOURCE_ROM_SHADOW:
                return subject.machine.memory.read(resource.start + offset, size)
            if subject.bus.fabric.at(subject.device.bdf) is None:
                return b"\xff" * size
            return b"".join(resource.bar.target.buffers(offset, size))


def image_size(window: Callable[[int, int], bytes]) -> int:
    """`pci_get_rom_size`: the length of the chain of images, 0 when it starts with none.

    `window(offset, size)` reads the ROM; fewer bytes at its end.
    """
    at = 0
    while window(at, 2) == _SIGNATURE:
        structure = at + int.from_bytes(window(at + 24, 2), "little")
        if window(structure, 4) != _STRUCTURE:
            break
        length = int.from_bytes(window(structure + 16, 2), "little") * 512
        last = window(structure + 21, 1)[0] & _LAST_IMAGE
        at += length
        if last or not length:
            break
    return at


class VpdFile(BinaryFile):
    """`vpd`: vital product data, four bytes at a time through the capability's registers."""

    __slots__ = ("_subject",)

    def __init__(self, subject: Subject) -> None:
        super().__init__(mode=0o600, size=0, alive=subject.alive)
        self._subject = subject

    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        """ENODEV where nothing answers behind the registers, as for data without an end tag."""
        first, end = offset & ~3, min(offset + size, _VPD_SPACE)
        words = [self._word(at) for at in range(first, end, 4)]
        return b"".join(words)[offset - first :][:size]

    def _word(self, offset: int) -> bytes:
        subject = self._subject
        at = subject.vpd + 2
        with guarded(subject.machine, subject.device), subject.machine.lock:
            subject.bus.fabric.config_write(subject.device.bdf, at, offset.to_bytes(2, "little"))
        if not subject.get(at, 2) & _VPD_DONE:
            raise Refused(errno.ENODEV)
        return subject.get(at + 2, 4).to_bytes(4, "little")
