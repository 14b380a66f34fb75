"""Phase `dimm`: a DIMM is plugged, its blocks go online and offline, and it is pulled out again."""

from truth.actors import Actors
from truth.probe import Probe, Record
from truth.tree import PAGE

MEMORY = "/sys/devices/system/memory"
SLOT = "dimm0"
ADDRESS = 0x1_6000_0000
BLOCKS = (44, 45)


def run(actors: Actors, records: list[Record]) -> None:
    root, _ = actors.probes(records, "dimm")
    root.write_file("auto-offline", f"{MEMORY}/auto_online_blocks", "offline")
    actors.unplug("plug-dimm", SLOT)
    _look(root, "dimm-offline")
    for number in BLOCKS:
        _set(root, number, "online_movable")
    _look(root, "dimm-online")
    _set(root, BLOCKS[0], "offline")
    _look(root, "dimm-block-offlined")
    actors.unplug("unplug-dimm", SLOT)
    _look(root, "dimm-deleted")


def _set(root: Probe, number: int, word: str) -> None:
    """What a shell did there: without a record, but it has to work."""
    root.write_file("", f"{MEMORY}/memory{number}/state", word)
    done = root.records.pop()
    assert done["errno"] is None, done


def _look(root: Probe, case: str) -> None:
    fd = root.fd("/dev/mem")
    root.pread(f"{case} pread", fd, ADDRESS, 16)
    root.map_and_touch(f"{case} mmap", fd, ADDRESS, PAGE)
    root.close(fd)
