"""The files of memory blocks and nodes in /sys, as tools read and write them."""

import stat

import pytest
from memory_machines import BLOCK, MEMORY, NODE_SETTINGS, NODES, machine_of, shown
from pci_tree import USER, WRITER, Setup, directory_at, entries_of, node_at, read, refused, write

from fakedev.devices.memory.nodes import cpu_mask, cpus_of, list_text
from fakedev.devices.memory.onlining import EHWPOISON
from fakedev.devices.memory.poison import poison_of
from fakedev.model.files import StaticFile
from fakedev.model.machine import Machine
from fakedev.views.node import Node, Opener, Refused
from fakedev.views.tree import Tree, listing, live_directories


@pytest.fixture
def machine() -> Machine:
    return machine_of()


@pytest.fixture
def tree(machine: Machine) -> Tree:
    return Setup(machine).tree


def code_of(node: Node, word: str) -> int:
    with pytest.raises(Refused) as caught:
        write(node, word)
    return caught.value.errno


def text(tree: Tree, path: str) -> str:
    return read(node_at(tree, path)).decode()


# -- /sys/devices/system/memory -------------------------------------------------------------------


def test_a_block_has_the_files_of_the_kernel(tree: Tree) -> None:
    found = entries_of(directory_at(tree, f"{MEMORY}/memory34"))
    assert list(found) == [
        "node0", "online", "phys_device", "phys_index", "power", "removable", "state", "subsystem",
        "uevent", "valid_zones",
    ]  # fmt: skip
    assert text(tree, f"{MEMORY}/memory34/phys_index") == "00000022\n"
    assert text(tree, f"{MEMORY}/memory34/phys_device") == "0\n"
    assert text(tree, f"{MEMORY}/memory34/removable") == "1\n"
    assert stat.S_IMODE(node_at(tree, f"{MEMORY}/memory34/state").attr().mode) == 0o644


def test_settings(tree: Tree) -> None:
    assert text(tree, f"{MEMORY}/block_size_bytes") == "8000000\n"
    assert text(tree, f"{MEMORY}/auto_online_blocks") == "offline\n"
    for word in ("online", "online_kernel\n", "online_movable", "offline"):
        write(node_at(tree, f"{MEMORY}/auto_online_blocks"), word)
        assert text(tree, f"{MEMORY}/auto_online_blocks").strip() == word.strip()
    for word in ("zz", "", "online ", "offline\n\n", "1"):
        assert refused(write, node_at(tree, f"{MEMORY}/auto_online_blocks"), word) == "EINVAL"


def test_state(tree: Tree) -> None:
    state, zones = (node_at(tree, f"{MEMORY}/memory34/{n}") for n in ("state", "valid_zones"))
    assert (read(state), read(zones)) == (b"online\n", b"Normal\n")
    write(state, "offline\n")
    assert (read(state), read(zones)) == (b"offline\n", b"Normal Movable\n")
    assert refused(write, state, "offline") == "EINVAL"
    write(state, "online_movable")
    assert (read(state), read(zones)) == (b"online\n", b"Movable\n")
    for word in ("", "on", "online_", "0", "going-offline"):
        assert refused(write, state, word) == "EINVAL"


def test_online(tree: Tree) -> None:
    online = node_at(tree, f"{MEMORY}/memory34/online")
    for word, after in (
        ("1", b"1\n"),
        ("0\n", b"0\n"),
        ("n", b"0\n"),
        ("on", b"1\n"),
        ("off", b"0\n"),
    ):
        write(online, word)
        assert read(online) == after
    for word in ("", "2", "x", "o"):
        assert refused(write, online, word) == "EINVAL"


@pytest.mark.parametrize(("number", "code"), [(0, "EINVAL"), (2, "EBUSY")])
def test_what_cannot_go_offline(tree: Tree, number: int, code: str) -> None:
    for name, word in (("state", "offline"), ("online", "0")):
        assert refused(write, node_at(tree, f"{MEMORY}/memory{number}/{name}"), word) == code
    assert text(tree, f"{MEMORY}/memory{number}/state") == "online\n"


def test_poison_keeps_a_block_offline(machine: Machine, tree: Tree) -> None:
    write(node_at(tree, f"{MEMORY}/memory34/state"), "offline")
    machine.blocks.blocks[34].poisoned = True
    assert code_of(node_at(tree, f"{MEMORY}/memory34/online"), "1") == EHWPOISON


def test_blocks_come_and_go(machine: Machine, tree: Tree) -> None:
    memory, bus = directory_at(tree, MEMORY), directory_at(tree, "/sys/bus/memory/devices")
    assert memory.lookup("memory64") is None
    machine.blocks.dimms.plug("dimm0")
    state = node_at(tree, f"{MEMORY}/memory64/state")
    for directory in (memory, bus, directory_at(tree, f"{NODES}/node1")):
        assert {"memory64", "memory65"} <= set(directory.entries())
    handle = state.open(Opener(1, 0, 0))
    machine.blocks.dimms.unplug("dimm0")
    assert refused(handle.read, 0, 16) == "ENODEV"
    assert memory.lookup("memory64") is None
    assert "memory64" not in bus.entries()


@pytest.mark.parametrize(
    "name", ["memory034", "memory", "memory-1", "memory8", "memory\uff13", "memoryx"]
)
def test_no_such_block(tree: Tree, name: str) -> None:
    assert directory_at(tree, MEMORY).lookup(name) is None


def test_probe(machine: Machine) -> None:
    assert directory_at(Tree(machine), MEMORY).lookup("probe") is None
    machine.blocks.probe = True
    tree = Tree(machine)
    probe = node_at(tree, f"{MEMORY}/probe")
    for word, code in (
        ("zz", "EINVAL"), ("", "EINVAL"), ("0x200001000", "EINVAL"), ("0x100000000", "EEXIST"),
        ("0x10000000000000000", "ERANGE"), ("09", "EINVAL"),
    ):  # fmt: skip
        assert refused(write, probe, word) == code
    write(probe, "0x200000000\n")
    assert text(tree, f"{MEMORY}/memory64/state") == "offline\n"
    assert "200000000-207ffffff : System RAM\n" in machine.iomem()
    assert refused(read, probe) == "EACCES"


def test_offline_page(machine: Machine) -> None:
    poison_of(machine)
    tree = Tree(machine)
    for name in ("hard_offline_page", "soft_offline_page"):
        node = node_at(tree, f"{MEMORY}/{name}")
        assert refused(read, node) == "EACCES"
        assert refused(write, node, "zz") == "EINVAL"
        assert refused(write, node, "0x900000000") == "ENXIO"
        write(node, f"{34 * BLOCK:#x}")
    machine.blocks.offline(34)
    assert code_of(node_at(tree, f"{MEMORY}/memory34/state"), "online") == EHWPOISON


def test_who_may(tree: Tree) -> None:
    user = Opener(1, 1000, WRITER.flags)
    assert read(node_at(tree, f"{MEMORY}/memory34/state"), USER) == b"online\n"
    assert refused(node_at(tree, f"{MEMORY}/memory34/state").open, user) == "EACCES"


@pytest.mark.parametrize(("version", "there"), [("6.1", False), ("6.12", True)])
def test_crash_hotplug_came_with_6_6(version: str, there: bool) -> None:
    directory = directory_at(Tree(machine_of(version=version)), MEMORY)
    assert (directory.lookup("crash_hotplug") is not None) is there


# -- nodes ----------------------------------------------------------------------------------------


def test_nodes() -> None:
    machine = machine_of(nodes=NODE_SETTINGS)
    tree = Tree(machine)
    assert text(tree, f"{NODES}/online") == "0-1\n"
    assert text(tree, f"{NODES}/node1/cpulist") == "4-7,9\n"
    assert text(tree, f"{NODES}/node1/cpumap") == "2f0\n"
    assert text(tree, f"{NODES}/node1/distance") == "21 10\n"
    assert text(tree, f"{NODES}/node1/meminfo").startswith("Node 1 MemTotal:        1048576 kB\n")
    assert "memory34" in directory_at(tree, f"{NODES}/node1").entries()
    assert "memory34" not in directory_at(tree, f"{NODES}/node0").entries()
    machine.blocks.offline(34)
    assert text(tree, f"{NODES}/node1/meminfo").startswith("Node 1 MemTotal:         917504 kB\n")


def test_memory_of_a_new_node(machine: Machine, tree: Tree) -> None:
    assert "node1" in directory_at(tree, NODES).entries()  # that of the slot
    assert text(tree, f"{NODES}/has_memory") == "0\n"
    machine.blocks.dimms.plug("dimm0")
    machine.blocks.online_all([64, 65], "online_movable")
    assert text(tree, f"{NODES}/has_memory") == "0-1\n"
    assert text(tree, f"{NODES}/has_normal_memory") == "0\n"


def test_files_of_the_profile_stay(machine: Machine) -> None:
    machine.files[f"{NODES}/node0/meminfo"] = StaticFile.text("Node 0 MemTotal: 1 kB\n")
    machine.files[f"{NODES}/node0/hugepages/x"] = StaticFile.text("0\n")
    tree = Tree(machine)
    assert text(tree, f"{NODES}/node0/meminfo") == "Node 0 MemTotal: 1 kB\n"
    assert text(tree, f"{NODES}/node0/hugepages/x") == "0\n"
    assert text(tree, f"{NODES}/node0/distance") == "10 20\n"


@pytest.mark.parametrize(("given", "numbers"), [("", []), ("0-2,5", [0, 1, 2, 5]), ("40", [40])])
def test_lists(given: str, numbers: list[int]) -> None:
    assert cpus_of(given) == numbers
    assert list_text(numbers) == given


def test_masks() -> None:
    assert cpu_mask([]) == "0"
    assert cpu_mask([0, 33]) == "2,00000001"


# -- where they stand ------------------------------------------------------------------------------


def test_they_replace_the_hosts(machine: Machine) -> None:
    assert live_directories(machine)[MEMORY] is False
    assert stat.S_ISDIR(listing(machine)[NODES])


def test_eight_thousand_blocks_are_listed_at_once() -> None:
    iomem = f"100000000-{0x1_0000_0000 + 8192 * BLOCK - 1:x} : System RAM\n"
    directory = directory_at(Tree(machine_of(iomem=iomem, dimms=())), MEMORY)
    assert len(directory.entries()) == 8192 + 6


def test_states_are_told_by_number(machine: Machine, tree: Tree) -> None:
    machine.blocks.offline(35)
    assert text(tree, f"{MEMORY}/memory35/online") == "0\n"
    assert shown(machine)[35] == "offline"
    machine.reset()
    assert text(tree, f"{MEMORY}/memory35/online") == "1\n"
