"""Phase `bind-errors`: what bind, unbind, new_id, remove_id, driver_override and drivers_probe answer."""

from truth.actors import Actors
from truth.phase_sysfs import EDU
from truth.probe import Probe, Record
from truth.tree import DEVICES, PAGE

DRIVERS = "/sys/bus/pci/drivers"
STUB, UIO, VFIO = (f"{DRIVERS}/{name}" for name in ("pci-stub", "uio_pci_generic", "vfio-pci"))
NOBODY = "0000:ff:1f.7"
IDS = "1234 11e8"


def run(actors: Actors, records: list[Record]) -> None:
    root, user = actors.probes(records, "bind-errors")
    edu = root.tree.find(*EDU)
    actors.module("modprobe", "pci-stub")
    _stub(root, edu)
    _ids(root)
    _override(root, edu)
    _uio_and_vfio(actors, root, edu)
    user.write_file("bind-as-user", f"{STUB}/bind", "0000:00:01.0")
    actors.module("rmmod", "pci-stub")


def _driver(root: Probe, case: str, edu: str) -> None:
    root.state(case, "readlink", root.tree.driver(edu))


def _under(root: Probe, case: str, edu: str) -> int:
    """The path in /proc/iomem of BAR 0; returns its address."""
    start = root.tree.resources(edu)[0][0]
    root.record(case, "read", data=root.tree.iomem_path(start))
    return start


def _mem(root: Probe, case: str, start: int) -> None:
    fd = root.fd("/dev/mem")
    root.map_and_touch(case, fd, start, PAGE)
    root.close(fd)


def _stub(root: Probe, edu: str) -> None:
    write = root.write_file
    for case, file, value in (
        ("bind-nonexistent-bdf", "bind", NOBODY),
        ("bind-garbage", "bind", "hello"),
        ("bind-empty", "bind", ""),
        ("bind-nonmatching-device", "bind", edu),
        ("unbind-not-bound", "unbind", edu),
        ("unbind-nonexistent", "unbind", NOBODY),
        ("new_id-garbage", "new_id", "zzzz"),
        ("new_id-one-field", "new_id", "1234"),
        ("new_id-ok", "new_id", IDS),
        ("new_id-duplicate", "new_id", IDS),
    ):
        write(case, f"{STUB}/{file}", value)
    _driver(root, "driver-after-new_id", edu)
    write("bind-already-bound", f"{STUB}/bind", edu)
    start = _under(root, "iomem-after-pci-stub-bind", edu)
    _mem(root, "edu-mmap-under-pci-stub", start)
    write("unbind-ok", f"{STUB}/unbind", edu)
    write("unbind-again", f"{STUB}/unbind", edu)
    write("bind-with-newline", f"{STUB}/bind", f"{edu}\n")
    write("unbind-with-newline", f"{STUB}/unbind", f"{edu}\n")
    write("bind-leading-space", f"{STUB}/bind", f" {edu}")
    write("bind-short-bdf-no-domain", f"{STUB}/bind", edu[5:])


def _ids(root: Probe) -> None:
    root.write_file("remove_id-absent", f"{STUB}/remove_id", "dead beef")
    root.write_file("remove_id-ok", f"{STUB}/remove_id", IDS)
    root.write_file("remove_id-again", f"{STUB}/remove_id", IDS)
    root.read_file("bind-read", f"{STUB}/bind")


def _override(root: Probe, edu: str) -> None:
    path = f"{DEVICES}/{edu}/driver_override"
    root.read_file("driver_override-read", path)
    root.write_file("driver_override-set", path, "pci-stub")
    root.read_file("driver_override-read2", path)
    root.write_file("drivers_probe", "/sys/bus/pci/drivers_probe", edu)
    _driver(root, "driver-after-override-probe", edu)
    root.write_file("unbind-override", f"{STUB}/unbind", edu)
    root.write_file("driver_override-clear", path, "\n")
    root.write_file("drivers_probe-nonexistent", "/sys/bus/pci/drivers_probe", NOBODY)


def _uio_and_vfio(actors: Actors, root: Probe, edu: str) -> None:
    actors.module("modprobe", "uio_pci_generic")
    root.write_file("uio-new_id", f"{UIO}/new_id", IDS)
    _driver(root, "uio-driver", edu)
    start = _under(root, "uio-iomem", edu)
    _mem(root, "uio-devmem-mmap", start)
    root.write_file("uio-unbind", f"{UIO}/unbind", edu)
    # The module stays, as in the recording, where a mapping of /dev/uio0 was still held.
    actors.module("modprobe", "vfio-pci")
    root.write_file("vfio-new_id", f"{VFIO}/new_id", IDS)
    root.write_file("vfio-bind", f"{VFIO}/bind", edu)
    actors.module("rmmod", "vfio-pci")
