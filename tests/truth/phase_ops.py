"""Phase `sysfs-ops`: what the file system's own calls do to attributes, BARs, `config` and /proc/iomem."""

import os

from truth.actors import Actors
from truth.caller import Outcome
from truth.phase_dimm import MEMORY
from truth.phase_sysfs import EDU
from truth.probe import AT_FDCWD, OPEN, Probe, Record
from truth.tree import DEVICES, PAGE

FIONREAD, AT_REMOVEDIR = 0x541B, 0x200


def run(actors: Actors, records: list[Record]) -> None:
    root, _ = actors.probes(records, "sysfs-ops")
    folder = f"{DEVICES}/{root.tree.find(*EDU)}"
    _attribute(root, f"{folder}/vendor")
    _remove_file(root, f"{folder}/remove")
    _directory(root, folder)
    _resource(root, f"{folder}/resource0")
    _config(root, f"{folder}/config")
    _iomem(root)
    _memory(root)


def _memory(root: Probe) -> None:
    """Files of the memory blocks: by mode, by what they take, and one that is not there."""
    root.close(root.open("memory-state-open", f"{MEMORY}/memory0/phys_index"))
    root.read_file("soft_offline_page-read", f"{MEMORY}/soft_offline_page")
    root.write_file("soft_offline_page-bad", f"{MEMORY}/soft_offline_page", "zz")
    root.write_file("auto_online-bad", f"{MEMORY}/auto_online_blocks", "zz")
    root.read_file("probe-file", f"{MEMORY}/probe")


def _sizes(probe: Probe, *names: str) -> None:
    """Reduce the stat of the last record to what was recorded there."""
    stat = probe.records[-1]["extra"].pop("st")
    shown = {"size": stat["size"], "mode": hex(int(stat["mode"], 8)), "blksize": PAGE}
    probe.records[-1]["extra"] = {name: shown[name] for name in names}


def _plain(probe: Probe, case: str, op: str, name: str, *args: int | str) -> None:
    probe.record(case, op, probe.caller.call(name, *args))


def _map(probe: Probe, case: str, fd: int) -> None:
    probe.unmap(probe.map(case, fd, 0, PAGE, "R", "SHARED", 0))


def _attribute(root: Probe, path: str) -> None:
    fd = root.fd(path, os.O_RDONLY)
    root.stat_fd("vendor-fstat", fd)
    _sizes(root, "size", "mode", "blksize")
    root.read("vendor-read3", "read", fd, 3, shown=100)
    root.read("vendor-read-rest", "read", fd, 100, shown=100)
    root.read("vendor-read-eof", "read", fd, 100)
    root.read("vendor-pread-100", "pread", fd, 10, 100)
    root.read("vendor-pread-2", "pread", fd, 10, 2, shown=100)
    root.record("vendor-lseek-end", "lseek", root.caller.call("lseek", fd, 0, 2))
    root.caller.call("lseek", fd, 0, 0)
    root.read("vendor-lseek-0-reread", "read", fd, 100)
    _map(root, "vendor-mmap", fd)
    _plain(root, "vendor-ioctl", "ioctl", "ioctl", fd, FIONREAD, "@0")
    root.close(fd)
    for flags in (
        "O_WRONLY", "O_RDWR", "O_WRONLY|O_TRUNC", "O_RDONLY|O_CREAT", "O_RDONLY|O_CREAT|O_EXCL",
        "O_RDONLY|O_DIRECTORY", "O_RDONLY|O_DIRECT",
    ):  # fmt: skip
        root.close(root.open("vendor-open-root", path, flags))


def _remove_file(root: Probe, path: str) -> None:
    for flags in ("O_RDONLY", "O_RDWR", "O_WRONLY|O_APPEND", "O_WRONLY|O_TRUNC"):
        fd = root.open("remove-open-root", path, flags)
        if fd >= 0:
            root.read("remove-read", "read", fd, 10)
            root.close(fd)
    fd = root.fd(path, OPEN["O_WRONLY"])
    root.stat_fd("remove-stat", fd)
    _sizes(root, "mode", "size")
    root.records[-1]["op"] = "stat"
    root.close(fd)


def _directory(root: Probe, folder: str) -> None:
    new, vendor, resource = (f"{folder}/{name}" for name in ("newfile", "vendor", "resource0"))
    root.close(root.open("create-new-file", new, "O_RDWR|O_CREAT"))
    _plain(root, "mkdir", "mkdir", "mkdirat", AT_FDCWD, new, 0o755)
    _plain(root, "unlink", "unlink", "unlinkat", AT_FDCWD, vendor, 0)
    _plain(root, "rename", "rename", "renameat2", AT_FDCWD, vendor, AT_FDCWD, "/sys/x", 0)
    _plain(root, "truncate", "truncate", "truncate", vendor, 0)
    _plain(root, "chmod-0600-and-back", "chmod", "fchmodat", AT_FDCWD, vendor, 0o600)
    root.caller.call("fchmodat", AT_FDCWD, vendor, 0o444)
    _plain(root, "rmdir-device", "rmdir", "unlinkat", AT_FDCWD, folder, AT_REMOVEDIR)
    _link(root, "readlink-device", folder)
    _link(root, "readlink-driver-unbound", f"{folder}/driver")
    _plain(
        root, "chmod-resource0-0644-then-user-open", "chmod", "fchmodat", AT_FDCWD, resource, 0o644
    )
    root.caller.call("fchmodat", AT_FDCWD, resource, 0o600)


def _link(root: Probe, case: str, path: str) -> None:
    done = root.caller.call("readlinkat", AT_FDCWD, path, "@0", 299)
    text = root.caller.show(0, done.value).decode() if done.errno is None else None
    root.record(case, "readlink", done, data=text)


def _resource(root: Probe, path: str) -> None:
    _plain(root, "resource0-truncate", "truncate", "truncate", path, 0)
    fd = root.fd(path)
    _plain(root, "resource0-lseek-end", "lseek", "lseek", fd, 0, 2)
    _plain(root, "resource0-lseek-set-0x2000", "lseek", "lseek", fd, 0x2000, 0)
    _plain(root, "resource0-fsync", "fsync", "fsync", fd)
    _plain(root, "resource0-ftruncate", "ftruncate", "ftruncate", fd, 0)
    root.close(fd)


def _config(root: Probe, path: str) -> None:
    fd = root.fd(path)
    _plain(root, "config-lseek-end", "lseek", "lseek", fd, 0, 2)
    root.read("config-read-at-end", "read", fd, 4)
    root.write("config-pwrite-cross-end", "pwrite", fd, bytes(8), 252)
    root.write("config-pwrite-at-256", "pwrite", fd, bytes(4), 256)
    root.write("config-pwrite-len0", "pwrite", fd, b"", 0)
    _plain(root, "config-ftruncate", "ftruncate", "ftruncate", fd, 0)
    root.close(fd)


def _iomem(root: Probe) -> None:
    path = "/proc/iomem"
    root.close(root.open("iomem-open-rdwr", path))
    fd = root.fd(path, os.O_RDONLY)
    root.stat_fd("iomem-fstat", fd)
    _sizes(root, "size", "mode")
    root.read("iomem-read-5", "read", fd, 5, shown=5)
    root.read("iomem-pread-off100", "pread", fd, 20, 100, shown=20)
    end: Outcome = root.caller.call("lseek", fd, 0, 2)
    root.record("iomem-lseek-end", "lseek", end)
    root.caller.call("lseek", fd, 0, 0)
    root.read("iomem-read-big", "read", fd, 5000)
    _map(root, "iomem-mmap", fd)
    root.close(fd)
