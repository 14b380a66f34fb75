"""Phases `sysfs` and `sysfs-bound`: attributes, configuration space and BARs of four functions."""

import os

from truth.actors import CAP_SYS_ADMIN, CAP_SYS_RAWIO, Actors, page, without
from truth.caller import Outcome
from truth.probe import Probe, Record
from truth.tree import DEVICES, PAGE

FUNCTIONS = [(0x8086, 0x100E), (0x1AF4, 0x1110), (0x1234, 0x11E8), (0x1B36, 5)]
EDU = FUNCTIONS[2]
CONFIG_READS = [
    (0, 4), (0, 64), (0, 256), (0, 4096), (0, 5000), (2, 2), (1, 3), (60, 8), (64, 16), (252, 16),
    (256, 16), (4092, 16), (4096, 4), (0, 0),
]  # fmt: skip
MEMORY = 0x200
#: So many lines of `resource` were recorded, also of bridges, which have more.
LINES = 13
PCIIOC_MMAP_IS_MEM = 0x50434902


def enumerate_devices(probe: Probe) -> None:
    """Ids, driver and resources of every function."""
    for bdf in probe.tree.names(DEVICES):
        ids = {
            name: hex(int(probe.tree.slurp(f"{DEVICES}/{bdf}/{name}"), 0))
            for name in ("vendor", "device", "class")
        }
        resources = [" ".join(map(hex, one)) for one in probe.tree.resources(bdf)[:LINES]]
        driver = probe.tree.driver(bdf)
        probe.state(
            "pci-device", "enumerate", driver, args={"bdf": bdf, **ids}, resources=resources
        )


def run_bound(actors: Actors, records: list[Record]) -> None:
    for module in [
        "e1000",
        "nvme",
        "ahci",
        "xhci_pci",
        "snd_hda_intel",
        "i2c_i801",
        "virtio_pci",
        "bochs",
    ]:
        actors.module("modprobe", module)
    enumerate_devices(actors.probes(records, "sysfs-bound")[0])


def run(actors: Actors, records: list[Record]) -> None:
    root, user = actors.probes(records, "sysfs")
    enumerate_devices(root)
    for ids in FUNCTIONS:
        bdf = root.tree.find(*ids)
        _config(root, user, bdf)
        for number, (start, end, flags) in enumerate(root.tree.resources(bdf)[:6]):
            if flags:
                _bar(root, user, bdf, number, (start, end - start + 1, flags))
        _rom(root, f"{DEVICES}/{bdf}/rom")
        there = root.caller.call("faccessat", -100, f"{DEVICES}/{bdf}/resource0_resize", os.F_OK)
        root.record("resource0_resize-exists", "access", there.value)
    edu = root.tree.find(*EDU)
    _enable(root, user, f"{DEVICES}/{edu}/enable")
    _decode(root, edu)
    _proc_bus_pci(root, user, edu)
    root.read_file("pci-drivers_autoprobe", "/sys/bus/pci/drivers_autoprobe")


def _config(root: Probe, user: Probe, bdf: str) -> None:
    path = f"{DEVICES}/{bdf}/config"
    fd = root.fd(path)
    root.stat_fd("config-fstat", fd)
    root.records[-1]["extra"] = {"size": root.records[-1]["extra"]["st"]["size"]}
    for offset, size in CONFIG_READS:
        root.read("config-read-root", "pread", fd, size, offset, shown=16)
    root.caller.call("pread64", fd, "@0", 2, 4)
    root.write("config-write-root-cmdreg", "pwrite", fd, root.caller.show(0, 2), 4)
    root.write("config-write-past-end", "pwrite", fd, bytes(4), 4096)
    root.unmap(root.map("config-mmap", fd, 0, PAGE, "R", "SHARED", 0))
    child = root.child()
    without(child, CAP_SYS_ADMIN)
    reader = Probe(child, root.records, root.phase)
    reader.read("config-read-rootfd-by-user", "pread", fd, 256, 0)
    child.end()
    root.close(fd)
    _config_as_user(user, path)


def _config_as_user(user: Probe, path: str) -> None:
    fd = user.open("config-open-user", path, "O_RDONLY", "uid1000")
    user.read("config-read-user", "pread", fd, 256, 0)
    user.read("config-read-user-off64", "pread", fd, 16, 64)
    user.read("config-read-user-off60-len8", "pread", fd, 8, 60)
    user.close(fd)
    user.close(user.open("config-open-user-rdwr", path, "O_RDWR", "uid1000"))


def _bar(root: Probe, user: Probe, bdf: str, number: int, bar: tuple[int, int, int]) -> None:
    start, length, flags = bar
    memory = bool(flags & MEMORY)
    path = f"{DEVICES}/{bdf}/resource{number}"
    case = f"{bdf}-resource{number}({'mem' if memory else 'io'},len={length:#x})"
    user.close(user.open(f"resource{number}-open-user", path, "O_RDONLY", "uid1000"))
    child = root.child()
    without(child, CAP_SYS_RAWIO)
    less = Probe(child, root.records, root.phase)
    less.open("resourceN-open-root-without-RAWIO", path, "O_RDWR", "uid0 minus CAP_SYS_RAWIO")
    child.end()
    readable, fd = root.open(case, path, "O_RDONLY"), root.open(case, path, "O_RDWR")
    root.stat_fd(case, fd)
    stat = root.records[-1]["extra"].pop("st")
    root.records[-1]["extra"] = {"size": stat["size"], "mode": hex(int(stat["mode"], 8))}
    for size, offset in ((1, 0), (2, 0), (4, 0), (8, 0), (3, 0), (4, length), (0, 0)):
        shown = size if offset == 0 and size != 3 else 0
        root.read(case, "pread", fd, size, offset, shown=shown)
    if memory:
        root.write(case, "pwrite", fd, bytes(4), 0)
    else:
        root.record(case, "pwrite", -1)  # the recording skipped it too
    root.record(case, "lseek-END", root.caller.call("lseek", fd, 0, 2))
    _bar_maps(root, case, (readable, fd), start, length)
    root.close(readable, fd)


def _bar_maps(root: Probe, case: str, fds: tuple[int, int], start: int, length: int) -> None:
    readable, fd = fds
    whole = length + PAGE - 1 & -PAGE
    last = max(length - PAGE, 0)
    for name, offset, size, prot, flags, of in (
        ("1page", 0, PAGE, "R", "SHARED", fd),
        ("1page-rw", 0, PAGE, "RW", "SHARED", fd),
        ("1page-private", 0, PAGE, "R", "PRIVATE", fd),
        ("1page-private-rw", 0, PAGE, "RW", "PRIVATE", fd),
        ("full", 0, length, "RW", "SHARED", fd),
        ("full+1", 0, whole + 1, "R", "SHARED", fd),
        ("off=len", whole, PAGE, "R", "SHARED", fd),
        ("last-page", last, PAGE, "R", "SHARED", fd),
        ("last-page-2pages", last, 2 * PAGE, "R", "SHARED", fd),
        ("bus-addr-as-offset", page(start), PAGE, "R", "SHARED", fd),
        ("unaligned", 1, PAGE, "R", "SHARED", fd),
        ("ro-fd-rw", 0, PAGE, "RW", "SHARED", readable),
        ("exec", 0, PAGE, "RX", "SHARED", fd),
    ):
        root.map_and_touch(f"{case} mmap-{name}", of, offset, size, prot, flags, words=1)
        root.records[-1]["extra"].pop("last_u32", None)


def _rom(root: Probe, path: str) -> None:
    if root.caller.call("faccessat", -100, path, os.F_OK).errno:
        return
    root.read_file("rom-read-before-enable", path)
    root.write_file("rom-enable", path, "1")
    root.read_file("rom-read-after-enable", path)
    root.write_file("rom-disable", path, "0")
    fd = root.fd(path, os.O_RDONLY)
    root.stat_fd("rom-stat", fd)
    root.close(fd)
    stat = root.records[-1]["extra"].pop("st")
    root.records[-1] |= {
        "op": "stat",
        "extra": {"size": stat["size"], "mode": hex(int(stat["mode"], 8))},
    }


def _enable(root: Probe, user: Probe, path: str) -> None:
    root.read_file("edu-enable-read", path)
    root.write_file("edu-enable-1", path, "1")
    root.read_file("edu-enable-read-after", path)
    root.write_file("edu-enable-0", path, "0")
    root.write_file("edu-enable-0-again", path, "0")
    root.write_file("edu-enable-bad", path, "x")
    user.write_file("edu-enable-user", path, "1")


def _decode(root: Probe, bdf: str) -> None:
    """COMMAND.MEM off and on again, then BAR 0 to another address and back, under mappings."""
    folder = f"{DEVICES}/{bdf}"
    base = root.tree.resources(bdf)[0][0]
    config, memory = root.fd(f"{folder}/config"), root.fd("/dev/mem")
    root.caller.call("pread64", config, "@0", 2, 4)
    command = int.from_bytes(root.caller.show(0, 2), "little")
    mapping = root.map("(edu)", memory, base, PAGE, "RW", "SHARED", base)
    root.records.pop()
    root.touch("edu-before-mem-decode-off", mapping)
    root.write("edu-config-clear-MEM", "pwrite", config, (command & ~2).to_bytes(2, "little"), 4)
    root.records[-1]["extra"]["cmd_before"] = hex(command)
    root.touch("edu-after-mem-decode-off", mapping)
    root.store("edu-write-mem-decode-off", mapping, 4, 1)
    root.map_and_touch("edu-mmap-mem-decode-off", memory, base, PAGE)
    fd = root.fd(f"{folder}/resource0")
    other = root.map("edu-sysfs-mmap-mem-decode-off", fd, 0, PAGE, "R", "SHARED", base)
    root.touch("edu-sysfs-touch-mem-decode-off", other)
    root.unmap(other)
    root.caller.call("pwrite64", config, root.caller.put(0, command.to_bytes(2, "little")), 2, 4)
    root.touch("edu-after-mem-decode-on", mapping)
    root.caller.call("pread64", config, "@0", 4, 0x10)
    old = root.caller.show(0, 4)
    root.touch("edu-before-bar-rewrite", mapping)
    root.write("edu-config-rewrite-BAR0", "pwrite", config, (0xD000_0000).to_bytes(4, "little"), 16)
    root.records[-1]["extra"]["old"] = hex(int.from_bytes(old, "little"))
    root.touch("edu-old-addr-after-bar-rewrite", mapping)
    root.map_and_touch("edu-new-addr-after-bar-rewrite", memory, 0xD000_0000, PAGE)
    root.read_file("edu-resource-file-after-bar-rewrite", f"{folder}/resource")
    root.caller.call("pwrite64", config, root.caller.put(0, old), 4, 0x10)
    root.touch("edu-after-bar-restore", mapping)
    root.unmap(mapping)
    root.close(fd, config, memory)


def _proc_bus_pci(root: Probe, user: Probe, bdf: str) -> None:
    base = root.tree.resources(bdf)[0][0]
    path = f"/proc/bus/pci/{bdf[5:7]}/{bdf[8:]}"
    fd = root.open("proc-bus-pci-open", path)
    root.stat_fd("proc-bus-pci-fstat", fd)
    root.records[-1]["extra"] = {"size": root.records[-1]["extra"]["st"]["size"]}
    mapping = root.map("proc-bus-pci-mmap-without-ioctl", fd, base, PAGE, "R", "SHARED", base)
    root.unmap(mapping)
    done = root.caller.call("ioctl", fd, PCIIOC_MMAP_IS_MEM, 0)
    root.record("proc-bus-pci-ioctl-MMAP_IS_MEM", "ioctl", Outcome(done.value, done.errno))
    mapping = root.map("proc-bus-pci-mmap-mem", fd, base, PAGE, "R", "SHARED", base)
    root.touch("proc-bus-pci-touch", mapping)
    root.unmap(mapping)
    root.close(fd)
    fd = user.open("proc-bus-pci-open-user", path, "O_RDONLY", "uid1000")
    user.read("proc-bus-pci-read-user", "read", fd, 256)
    user.close(fd)
