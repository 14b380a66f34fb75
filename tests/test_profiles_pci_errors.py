"""What is wrong below `pci:` is reported where it is, with what would be right."""

from pathlib import Path

import pytest
from profile_files import Folder

WINDOW = 'iomem: ["80000000-dfffffff : PCI Bus 0000:00"]\n'
PCI = WINDOW + "pci:\n  functions:\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKEDEV_NO_CACHE", "1")
    return Folder(tmp_path)


def fn(bdf: str, rest: str = "") -> str:
    """A function on a line of its own; what is behind `rest` begins at column 17 + len(bdf) - 7."""
    return f'    "{bdf}": {{{rest}{", " if rest else ""}id: "8086:100e", class: "020000"}}\n'


PORT = fn("00:01.0", "bridge: {secondary: 1, memory: d8000000-d80fffff}")
# text behind line 1 (functions start on line 5), and the whole list of problems
SINGLE = {
    "BAR outside its bridge window": (
        PCI + PORT + fn("01:00.0", "bars: {0: {mem32: 64K, at: 0xd9000000}}"),
        ("m.yaml:6:27: 0000:01:00.0 BAR 0 (d9000000-d900ffff) lies outside the memory window d8000000-d80fffff "
        "of its bridge 0000:00:01.0 (m.yaml:5:25); move it, or widen the window"),
    ),
    "BAR outside the windows of its root bus": (
        PCI + fn("00:02.0", "bars: {0: {mem32: 64K, at: 0xe9000000}}"),
        ("m.yaml:5:27: 0000:00:02.0 BAR 0 (e9000000-e900ffff) lies outside the windows of `PCI Bus 0000:00` in "
        "`iomem:` (80000000-dfffffff); move it"),
    ),
    "BAR behind a bridge without a window": (
        PCI + PORT.replace("d8000000-d80fffff", "none") + fn("01:00.0", "bars: {0: {mem32: 64K, at: 0xd9000000}}"),
        ("m.yaml:6:27: 0000:01:00.0 BAR 0 needs memory addresses, and its bridge 0000:00:01.0 (m.yaml:5:25) has "
        "no such window; write `memory: d9000000-d90fffff` there"),
    ),
    "BAR without an address behind a bridge without a window": (
        PCI + PORT.replace("d8000000-d80fffff", "none") + fn("01:00.0", "bars: {0: {mem32: 64K}}"),
        ("m.yaml:6:27: 0000:01:00.0 BAR 0 needs memory addresses, and its bridge 0000:00:01.0 (m.yaml:5:25) has "
        "no such window; write `memory: auto` there"),
    ),
    "not prefetchable": (
        PCI + PORT.replace("memory:", "prefetch:") + fn("01:00.0", "bars: {0: {mem32: 64K, at: 0xd8000000}}"),
        ("m.yaml:6:27: 0000:01:00.0 BAR 0 is not prefetchable, so it cannot lie in the prefetchable window "
        "d8000000-d80fffff of its bridge 0000:00:01.0; move it"),
    ),
    "I/O BAR outside": (
        "pci:\n  ports: ['1000-1fff : PCI Bus 0000:00']\n  functions:\n"
        + fn("00:02.0", "bars: {0: {io: 32, at: 0x2000}}"),
        ("m.yaml:5:27: 0000:00:02.0 BAR 0 (2000-201f) lies outside the windows of `PCI Bus 0000:00` in "
        "`ports:` (1000-1fff); move it"),
    ),
    "two functions at one address": (
        PCI + fn("00:02.0") + fn("0000:00:02.0"),
        "m.yaml:6:5: two functions at one address: 0000:00:02.0 is there already (m.yaml:5:5); keep one, or move it",
    ),
    "BARs overlap": (
        PCI
        + fn("00:02.0", "bars: {0: {mem32: 64K, at: 0xd8000000}}")
        + fn("00:03.0", "bars: {0: {mem32: 4K, at: 0xd8001000}}"),
        ("m.yaml:6:27: 0000:00:03.0 BAR 0 (d8001000-d8001fff) overlaps 0000:00:02.0 BAR 0 (d8000000-d800ffff) of "
        "m.yaml:5:27; move one of them"),
    ),
    "BAR overlaps a window": (
        PCI + PORT + fn("00:03.0", "bars: {0: {mem32: 4K, at: 0xd8001000}}"),
        ("m.yaml:6:27: 0000:00:03.0 BAR 0 (d8001000-d8001fff) overlaps the memory window of 0000:00:01.0 "
        "(d8000000-d80fffff) of m.yaml:5:48; move one of them"),
    ),
    "BAR overlaps a segment": (
        "memory: {segments: [{range: d8000000-d8000fff, name: old}]}\n"
        "pci:\n  functions:\n" + fn("00:03.0", "bars: {0: {mem32: 4K, at: 0xd8000000}}"),
        ("m.yaml:5:43: memory d8000000-d8000fff (0000:00:03.0 BAR 0) overlaps d8000000-d8000fff (old) of "
        "m.yaml:2:29; move or shorten one of them"),
    ),
    "size is no power of two": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 3000}}"),
        ("m.yaml:5:35: pci.functions.00:03.0.bars.0.mem32: '3000' is no power of two, and a BAR has no other "
        "sizes; 0x1000 would be right"),
    ),
    "size below that of memory": (
        PCI + fn("00:03.0", "bars: {0: {mem64: 8}}"),
        "m.yaml:5:35: pci.functions.00:03.0.bars.0.mem64: a BAR in memory space has at least 16 bytes, not 8",
    ),
    "size below that of I/O": (
        PCI + fn("00:03.0", "bars: {0: {io: 2}}"),
        "m.yaml:5:32: pci.functions.00:03.0.bars.0.io: a BAR in I/O space has at least 4 bytes, not 2",
    ),
    "size of a ROM": (
        PCI + fn("00:03.0", "bars: {rom: {size: 1K}}"),
        "m.yaml:5:36: pci.functions.00:03.0.bars.rom.size: an expansion ROM has 2 KiB to 16 MiB, not 0x400 bytes",
    ),
    "two sizes": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 64K, io: 4}}"),
        ("m.yaml:5:27: pci.functions.00:03.0.bars.0: one size is needed, not mem32 and io; write mem32, mem64 or "
        "io, e.g. `mem32: 64K`"),
    ),
    "address is not aligned": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 64K, at: 0xd8001000}}"),
        ("m.yaml:5:44: 0000:00:03.0 BAR 0 of 0x10000 bytes lies at a multiple of its size, and 0xd8001000 is none; "
        "0xd8000000 or 0xd8010000 would be right"),
    ),
    "address beyond 32 bits": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 64K, at: 0x180000000}}"),
        "m.yaml:5:44: 0000:00:03.0 BAR 0 (180000000-18000ffff) leaves its 32 bits",
    ),
    "no room": (
        PCI.replace("dfffffff", "800fffff") + fn("00:03.0", "bars: {0: {mem32: 2M}}"),
        ("m.yaml:5:27: there is no room below 4 GiB for 0000:00:03.0 BAR 0 (0x200000 bytes) in the windows of bus "
        "0000:00; give it an address, or make room"),
    ),
    "index of a BAR": (
        PCI + fn("00:03.0", "bars: {6: {mem32: 4K}}"),
        "m.yaml:5:24: unknown key '6'; known here: 0, 1, 2, 3, 4, 5, rom",
    ),
    "BAR 5 of 64 bits": (
        PCI + fn("00:03.0", "bars: {5: {mem64: 4K}}"),
        "m.yaml:5:27: a 64-bit BAR takes two registers, and BAR 5 is the last one; use mem32, or a lower index",
    ),
    "upper half": (
        PCI + fn("00:03.0", "bars: {0: {mem64: 4K}, 1: {mem32: 4K}}"),
        "m.yaml:5:40: BAR 1 is the upper half of BAR 0, which has 64 bits; use 2, or mem32 there",
    ),
    "BAR 2 of a bridge": (
        PCI + fn("00:01.0", "bridge: {secondary: 1}, bars: {2: {mem32: 4K}}"),
        "m.yaml:5:48: a bridge has BARs 0 and 1, not 2",
    ),
    "unknown key": (PCI + fn("00:03.0", "brs: {}"), "m.yaml:5:17: unknown key 'brs' (did you mean 'bars'?)"),
    "unknown capability": (
        PCI + fn("00:03.0", "capabilities: [pm: {}, mzix: {}]"),
        "m.yaml:5:40: unknown capability 'mzix' (did you mean 'msix'?)",
    ),
    "unknown capability as a word": (
        PCI + fn("00:03.0", "capabilities: [pm, aerr]"),
        "m.yaml:5:36: unknown capability 'aerr' (did you mean 'aer'?)",
    ),
    "unknown option": (
        PCI + fn("00:03.0", "capabilities: [pcie: {tpye: endpoint}]"),
        "m.yaml:5:39: pcie has no option 'tpye' (did you mean 'type'?)",
    ),
    "option out of range": (
        PCI + fn("00:03.0", "capabilities: [pcie: {speed: 9}]"),
        "m.yaml:5:38: pcie: speed is 1 (2.5 GT/s) to 6 (64 GT/s), not 9",
    ),
    "option is no number": (
        PCI + fn("00:03.0", "capabilities: [pcie: {speed: x}]"),
        "m.yaml:5:46: pcie: speed: not a number: 'x'; write 4096, 0x1000 or 64K",
    ),
    "option is no boolean": (
        PCI + fn("00:03.0", "capabilities: [pcie: {flr: 1}]"),
        "m.yaml:5:44: pcie: flr: true or false is needed here, not '1'",
    ),
    "two capabilities in one": (
        PCI + fn("00:03.0", "capabilities: [{pm: {}, msi: {}}]"),
        "m.yaml:5:32: one capability is needed here, not 'pm' and 'msi'; write `- pm: {}`",
    ),
    "capabilities overlap": (
        PCI + fn("00:03.0", "capabilities: [pm: {at: 0x40}, msi: {at: 0x44}]"),
        "m.yaml:5:31: msi at 0x44 overlaps pm at 0x40",
    ),
    "table of MSI-X beyond its BAR": (
        PCI + fn("00:03.0", "capabilities: [msix: {vectors: 300, pba: [0, 0x800]}], bars: {0: {mem32: 4K}}"),
        "m.yaml:5:38: msix: the table of 300 vectors needs 0x12c0 bytes at 0x0, and BAR 0 has 0x1000",
    ),
    "table of MSI-X in no BAR": (
        PCI + fn("00:03.0", "capabilities: [msix: {table: [1, 0]}], bars: {0: {mem32: 4K}, 1: {io: 32}}"),
        "m.yaml:5:46: msix: the table lies in BAR 1, which is no memory BAR of this function (it has 0)",
    ),
    "port without bridge": (
        PCI + fn("00:03.0", "capabilities: [pcie: {type: root-port}]"),
        "m.yaml:5:31: a root-port is a bridge; write `bridge: {secondary: ...}`",
    ),
    "id is no hexadecimal": (
        PCI + '    "00:03.0": {id: "80g6:100e", class: "020000"}\n',
        ("m.yaml:5:21: pci.functions.00:03.0.id: not hexadecimal: '80g6'; write vendor:device in hexadecimal, "
        '"8086:100e"'),
    ),
    "half an id": (
        PCI + '    "00:03.0": {id: "8086", class: "020000"}\n',
        ("m.yaml:5:21: pci.functions.00:03.0.id: not an id: '8086'; write vendor:device in hexadecimal, "
        '"8086:100e"'),
    ),
    "id too long": (
        PCI + '    "00:03.0": {id: "18086:1", class: "020000"}\n',
        ("m.yaml:5:21: pci.functions.00:03.0.id: '18086' has more than 4 hexadecimal digits; write vendor:device "
        'in hexadecimal, "8086:100e"'),
    ),
    "class code": (
        PCI + '    "00:03.0": {id: "8086:1", class: "2000"}\n',
        "m.yaml:5:38: pci.functions.00:03.0.class: not a class code: '2000'; write six hexadecimal digits, \"010802\"",
    ),
    "no id": (
        PCI + '    "00:03.0": {class: "020000"}\n',
        "m.yaml:5:16: 'id' is missing (vendor:device, in hexadecimal: \"8086:100e\")",
    ),
    "not an address": (
        PCI + fn("00:3g.0"),
        "m.yaml:5:5: not the address of a PCI function: '00:3g.0'; write 00:1f.2 or 0000:00:1f.2",
    ),
    "device beyond 1f": (PCI + fn("00:23.0"), "m.yaml:5:5: 00:23.0: device 0x23 is beyond 1f"),
    "no function 0": (
        PCI + fn("00:03.1"),
        "m.yaml:5:5: 0000:00:03.1 is never found: the kernel looks for it only where there is a 0000:00:03.0",
    ),
    "bus that no bridge leads to": (
        PCI + fn("05:00.0"),
        ("m.yaml:5:5: no bridge leads to bus 0000:05; add a bridge with `secondary: 0x05`, or use one of the buses "
        "0000:00"),
    ),
    "two bridges to one bus": (
        PCI + PORT + fn("00:02.0", "bridge: {secondary: 1}"),
        "m.yaml:6:37: two bridges lead to bus 0000:01: 0000:00:01.0 does too (m.yaml:5:25)",
    ),
    "bus numbers of siblings clash": (
        PCI + fn("00:01.0", "bridge: {secondary: 1, subordinate: 5}") + fn("00:02.0", "bridge: {secondary: 3}"),
        ("m.yaml:6:25: bridge bus numbers clash: 0000:00:02.0 [bus 03-03] and 0000:00:01.0 [bus 01-05] "
        "(m.yaml:5:25) lead to the same buses"),
    ),
    "bus numbers do not nest": (
        PCI + fn("00:01.0", "bridge: {secondary: 1, subordinate: 2}") + fn("01:00.0", "bridge: {secondary: 3}"),
        ("m.yaml:6:25: bridge bus numbers clash: 0000:01:00.0 [bus 03-03] lies behind 0000:00:01.0 [bus 01-02], "
        "which leads to fewer buses; `subordinate: 0x03` would be right there (m.yaml:5:25)"),
    ),
    "bus range backwards": (
        PCI + fn("00:01.0", "bridge: {secondary: 5, subordinate: 2}"),
        "m.yaml:5:53: the last bus behind the bridge (0x02) comes before the first (0x05)",
    ),
    "bridge to its own bus": (
        PCI + fn("00:01.0", "bridge: {secondary: 0}"),
        ("m.yaml:5:37: bus 0x00 cannot lie behind a bridge on bus 0x00: the numbers behind a bridge are larger "
        "than its own"),
    ),
    "primary bus": (
        PCI + fn("00:01.0", "bridge: {primary: 3, secondary: 1}"),
        "m.yaml:5:35: the bridge sits on bus 0x00, so its primary bus is 0x00, not 0x03",
    ),
    "root bus behind a bridge": (
        WINDOW.replace('"]', '", "e0000000-efffffff : PCI Bus 0000:40"]') + "pci:\n  functions:\n"
        + fn("00:01.0", "bridge: {secondary: 1, subordinate: 0x50}"),
        ("m.yaml:5:25: bridge bus numbers clash: 0000:00:01.0 [bus 01-50] leads to bus 0000:40, which is a root "
        "bus"),
    ),
    "window is not whole MiB": (
        PCI + fn("00:01.0", "bridge: {secondary: 1, memory: d8000000-d8007fff}"),
        ("m.yaml:5:48: the memory window of 0000:00:01.0 is made of whole 1 MiB, and d8000000-d8007fff is not; "
        "d8000000-d80fffff would be right"),
    ),
    "memory window above 4 GiB": (
        "pci:\n  functions:\n" + fn("00:01.0", "bridge: {secondary: 1, memory: 100000000-1000fffff}"),
        "m.yaml:4:48: the memory window of 0000:00:01.0 lies below 0x100000000, and 100000000-1000fffff does not",
    ),
    "register outside": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 4K, registers: [{at: 0x1000}]}}"),
        "m.yaml:5:51: the register at 0x1000 lies outside its BAR of 0x1000 bytes",
    ),
    "registers overlap": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 4K, registers: [{at: 0}, {at: 2, width: 2}]}}"),
        "m.yaml:5:60: the register at 0x2 overlaps the one of m.yaml:5:51; move one of them",
    ),
    "register is not aligned": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 4K, registers: [{at: 2}]}}"),
        "m.yaml:5:51: pci.functions.00:03.0.bars.0.registers.0: 0x2 is not a multiple of 4, its width",
    ),
    "access": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 4K, registers: [{at: 0, access: w1s}]}}"),
        ("m.yaml:5:67: pci.functions.00:03.0.bars.0.registers.0.access: 'w1s' is not one of 'ro', 'rw', 'w1c', 'wo' "
        "or 'rc' (did you mean 'w1c'?)"),
    ),
    "content in registers": (
        "memory: {contents: [{at: 0xd8000000, u8: 1}]}\npci:\n  functions:\n"
        + fn("00:03.0", "bars: {0: {mem32: 4K, at: 0xd8000000, registers: [{at: 0}]}}"),
        ("m.yaml:2:21: 0000:00:03.0 BAR 0 answers at d8000000-d8000fff with registers, which hold no content; give "
        "the registers their values"),
    ),
    "file": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 4K, file: nope.bin}}"),
        "m.yaml:5:45: file 'nope.bin' (looked for in .): there is no such file",
    ),
    "raw bytes outside": (
        PCI + fn("00:03.0", "config: [{at: 0xff, u16: 1}]"),
        "m.yaml:5:26: 2 bytes at 0xff leave the 256 bytes of configuration space; `config_size: 4096` would do",
    ),
    "extended capability in 256 bytes": (
        PCI + fn("00:03.0", "config_size: 256, capabilities: [aer: {}]"),
        "m.yaml:5:30: an extended capability needs `config_size: 4096`",
    ),
    "driver that claims a BAR that does not exist": (
        PCI + fn("00:03.0", "bars: {0: {mem32: 4K}}") + '  drivers:\n    e1000: {ids: ["8086:100e"], claims: [0, 1]}\n',
        "m.yaml:7:41: e1000 claims BAR 1, which 0000:00:03.0 does not have (m.yaml:5:16; it has 0)",
    ),
    "bound driver that claims a BAR that does not exist": (
        PCI + fn("00:03.0", "driver: e1000") + "  drivers:\n    e1000: {claims: [0]}\n",
        "m.yaml:7:21: e1000 claims BAR 0, which 0000:00:03.0 does not have (m.yaml:5:16; it has none)",
    ),
    "claim beyond BAR 5": (
        PCI + "  drivers:\n    e1000: {claims: [0, 7]}\n",
        "m.yaml:6:21: pci.drivers.e1000.claims: there is no BAR 7: a function has BARs 0 to 5",
    ),
    "claim": (
        PCI + "  drivers:\n    e1000: {claims: some}\n",
        "m.yaml:6:21: pci.drivers.e1000.claims: not what a driver can claim: 'some'; write all, none, or [0, 2]",
    ),
    "id of a driver": (
        PCI + '  drivers:\n    e1000: {ids: ["8086:10xe"]}\n',
        ("m.yaml:6:19: pci.drivers.e1000.ids.0: not hexadecimal: '10xe'; write four hexadecimal digits, or * for "
        "any"),
    ),
    "class of a driver": (
        PCI + '  drivers:\n    e1000: {ids: ["class:02zz00"]}\n',
        ("m.yaml:6:19: pci.drivers.e1000.ids.0: not hexadecimal: '02zz00'; write class:CCCCCC or class:CCCCCC/MASK "
        "in hexadecimal"),
    ),
    "unknown driver": (
        PCI + fn("00:03.0", "driver: nvmee") + '  drivers:\n    nvme: {ids: ["8086:100f"]}\n',
        "m.yaml:5:25: there is no driver 'nvmee' (did you mean 'nvme'?); describe it under pci.drivers",
    ),
    "errno": (
        PCI + "  drivers:\n    e1000: {probe_error: EBUZY}\n",
        ("m.yaml:6:26: pci.drivers.e1000.probe_error: not an errno: 'EBUZY' (did you mean 'EBUSY'?); write EBUSY, "
        "ENODEV, ..."),
    ),
    "name of a driver": (
        PCI + "  drivers:\n    a/b: {}\n",
        "m.yaml:6:5: not a name of a driver: 'a/b'; it becomes a directory of /sys/bus/pci/drivers",
    ),
    "ECAM over a segment": (
        "memory: {segments: [{range: e0000000-e0000fff}]}\npci: {ecam: 0xe0000000}\n",
        ("m.yaml:2:29: segment (e0000000-e0000fff) lies in the configuration window e0000000-efffffff (ECAM), which "
        "answers there; move it, or take it out"),
    ),
    "address of ECAM": (
        "pci: {ecam: 0xe0001000}\n",
        "m.yaml:2:13: 0xe0001000 cannot be the address of ECAM: each bus has 1 MiB of it, at a multiple of that",
    ),
    "port outside its parent": (
        "pci:\n  ports: |\n    0000-0cf7 : PCI Bus 0000:00\n      0d00-0d0f : x\n",
        ("m.yaml:5:1: 0d00-0d0f : x does not lie inside 0000-0cf7 : PCI Bus 0000:00 of m.yaml:4:1; nodes nest or "
        "lie apart"),
    ),
    "ports overlap": (
        "pci:\n  ports: |\n    0000-0cf7 : PCI Bus 0000:00\n    0100-1000 : x\n",
        ("m.yaml:5:1: 0100-1000 : x is in conflict with 0000-0cf7 : PCI Bus 0000:00 of m.yaml:4:1; nodes nest or "
        "lie apart"),
    ),
    "port beyond the last": (
        "pci:\n  ports: |\n    0000-10cf7 : PCI Bus 0000:00\n",
        "m.yaml:4:1: 0000-10cf7 : PCI Bus 0000:00 ends beyond the last port, ffff",
    ),
    "reset method": (
        PCI + fn("00:03.0", "reset: [frl]"),
        ("m.yaml:5:24: pci.functions.00:03.0.reset: not a reset method: 'frl' (did you mean 'flr'?); one of "
        "device_specific, acpi, flr, af_flr, pm, bus, cxl_bus, or none"),
    ),
    "on_unplug": (
        PCI + fn("00:03.0", "on_unplug: sigbuss"),
        ("m.yaml:5:28: pci.functions.00:03.0.on_unplug: 'sigbuss' is not one of 'sigbus', 'all-ones' or 'poison' "
        "(did you mean 'sigbus'?)"),
    ),
    "CPUs": (
        "pci: {cpus: 3-1}\n",
        "m.yaml:2:13: pci.cpus: not a list of CPUs: '3-1'; each range goes up, to at most 8191",
    ),
    "pin": (
        PCI + fn("00:03.0", "interrupt: {pin: E}"),
        ("m.yaml:5:34: pci.functions.00:03.0.interrupt.pin: not an interrupt pin: 'E'; write A, B, C, D, or 0 for "
        "none"),
    ),
    "NUMA node": (
        PCI + fn("00:03.0", "numa_node: -2"),
        "m.yaml:5:28: pci.functions.00:03.0.numa_node: not a NUMA node: '-2'; write 0, 1, ... or -1 for none",
    ),
    "link": (
        PCI + fn("00:03.0", "links: {/proc/x: net/eth0}"),
        ("m.yaml:5:25: not a link into the function's directory: '/proc/x' to 'net/eth0'; write "
        "/sys/class/net/eth0: net/eth0"),
    ),
    "a list for functions": (
        "pci: {functions: []}\n",
        "m.yaml:2:18: pci.functions: a mapping (`key: value` lines) is needed here, not a list",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), SINGLE.values(), ids=SINGLE)
def test_one_problem(folder: Folder, text: str, problem: str) -> None:
    assert folder.check(text) == [problem]


def test_all_at_once(folder: Folder) -> None:
    text = PCI + PORT + (
        fn("01:00.0", "bars: {0: {mem32: 4K, at: 0xd9000000}}")
        + fn("02:00.0")
        + fn("00:04.0", "capabilities: [mzi: {}], driver: none")
        + fn("00:05.0", "driver: x")
    )  # fmt: skip
    places = [line.split(": ")[0] for line in folder.check(text)]
    assert places == ["m.yaml:6:27", "m.yaml:7:5", "m.yaml:8:32", "m.yaml:9:25"]


def test_a_mistake_in_pci_hides_what_only_follows_from_it(folder: Folder) -> None:
    text = (
        "memory: {contents: [{at: 0xd8000000, u8: 1}]}\n"
        + PCI
        + fn("00:03.0", "bars: {0: {mem32: 3K}}")
    )
    assert len(folder.check(text)) == 1
    text = text.replace("3K", "4K, at: 0xd8000000").replace("bars", "brs")
    assert len(folder.check(text)) == 1


def test_problems_are_at_the_file_that_has_them(folder: Folder) -> None:
    folder.write(PCI + PORT, "base.yaml")
    problems = folder.check(
        "extends: base.yaml\npci:\n  functions:\n"
        + fn("01:00.0", "bars: {0: {mem32: 4K, at: 0xd9000000}}")
    )
    assert [problem.split(": ")[0] for problem in problems] == ["m.yaml:5:27"]
    assert "base.yaml:5:25" in problems[0]


def test_an_override_is_named(folder: Folder) -> None:
    option = 'pci.functions."00:01.0".bridge.secondary=0'
    (problem,) = folder.refused(PCI + PORT, [option])
    assert problem.startswith(f"--set {option}: bus 0x00 cannot lie behind")
