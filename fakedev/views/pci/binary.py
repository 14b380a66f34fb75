"""Binary files of a function: `config`, `resourceN` of I/O BARs, `rom`, `vpd`."""

import errno
import stat
from collections.abc import Callable

from fakedev.devices.pci.device import ROM, PciDevice
from fakedev.model.errors import FakedevError
from fakedev.model.flags import IORESOURCE_ROM_SHADOW
from fakedev.model.machine import Machine
from fakedev.views.live import BinaryFile, kernel_errors
from fakedev.views.node import (
    Attr,
    Buffers,
    Handle,
    Node,
    Opener,
    Refused,
    access_mask,
    check_access,
)
from fakedev.views.pci.subject import Subject

_HEADER, _CARDBUS_HEADER, _CARDBUS = 64, 128, 2
_SIGNATURE = b"\x55\xaa"
_STRUCTURE = b"PCIR"
_LAST_IMAGE = 0x80
_IO_WIDTHS = (1, 2, 4)
_VPD_DONE = _VPD_SPACE = 0x8000


def visible_size(device: PciDevice, opener: Opener) -> int:
    """How much of the configuration an opener may read: all with CAP_SYS_ADMIN, else the header."""
    if opener.privileged:
        return device.function.config.size
    return _CARDBUS_HEADER if device.function.header_type == _CARDBUS else _HEADER


def check_lockdown(machine: Machine) -> None:
    """LOCKDOWN_PCI_ACCESS: EPERM for writes from lockdown=integrity on."""
    if machine.rules.lockdown_level != "none":
        raise Refused(errno.EPERM)


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

    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        size = min(size, visible_size(self._device, opener) - offset)
        if size <= 0:
            return b""
        self._bus.settle_config(self._device)
        with guarded(self._machine, self._device), self._machine.lock:
            return self._bus.config_read(self._device, offset, size)

    def save(self, offset: int, data: memoryview, opener: Opener) -> int:
        check_lockdown(self._machine)
        with guarded(self._machine, self._device):
            self._bus.config_write(self._device, offset, bytes(data))
        return len(data)


class ProcConfigFile(Node):
    """`/proc/bus/pci/BB/dd.f`: the same space by the rules of procfs (`proc_bus_pci_read`, `_write`)."""

    __slots__ = ("device", "machine")

    def __init__(self, machine: Machine, device: PciDevice) -> None:
        self.machine = machine
        self.device = device

    def attr(self) -> Attr:
        return Attr(stat.S_IFREG | 0o644, self.device.function.config.size)

    def open(self, opener: Opener) -> Handle:
        check_access(self.attr(), opener.uid, access_mask(opener.flags))
        return ProcConfigHandle(self, opener)


class ProcConfigHandle:
    """An open file of `/proc/bus/pci`: no limit of a page a call, and EIO once the function is removed."""

    __slots__ = ("_node", "_visible")
    slow = settles = True
    mappable = False

    def __init__(self, node: ProcConfigFile, opener: Opener) -> None:
        self._node = node
        self._visible = visible_size(node.device, opener)

    def read(self, offset: int, size: int) -> Buffers:
        self._check()
        node = self._node
        size = min(size, self._visible - offset)
        if size <= 0:
            return []
        node.machine.pci.settle_config(node.device)
        with kernel_errors(), guarded(node.machine, node.device), node.machine.lock:
            return [memoryview(node.machine.pci.config_read(node.device, offset, size))]

    def write(self, offset: int, data: memoryview) -> int:
        self._check()
        node = self._node
        check_lockdown(node.machine)
        data = data[: max(node.device.function.config.size - offset, 0)]
        if data:
            with kernel_errors(), guarded(node.machine, node.device):
                node.machine.pci.config_write(node.device, offset, bytes(data))
        return len(data)

    def _check(self) -> None:
        if self._node.device.gone:
            raise Refused(errno.EIO)


class IoResourceFile(BinaryFile):
    """`resourceN` of an I/O BAR: 1, 2 or 4 bytes a call go to the ports (`pci_resource_io`)."""

    __slots__ = ("_machine", "_start")

    def __init__(self, subject: Subject, index: int) -> None:
        resource = subject.device.resources[index]
        super().__init__(mode=0o600, size=resource.size, alive=subject.alive)
        self._machine = subject.machine
        self._start = resource.start

    def load(self, offset: int, size: int, opener: Opener) -> bytes:
        _check_width(size)
        with self._machine.lock:
            return self._machine.port_space.read(self._start + offset, size)

    def save(self, offset: int, data: memoryview, opener: Opener) -> int:
        check_lockdown(self._machine)
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
