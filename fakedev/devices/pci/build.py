"""A `PciPlan` to hardware, and to the kernel's view of it."""

from collections.abc import Callable
from typing import Any, cast

from fakedev.devices.pci import header
from fakedev.devices.pci.bars import ROM_INDEX, Bar
from fakedev.devices.pci.bdf import Bdf
from fakedev.devices.pci.bus import PciBus
from fakedev.devices.pci.conf1 import PORT, SIZE, Conf1
from fakedev.devices.pci.config import CONVENTIONAL, ConfigSpace
from fakedev.devices.pci.device import WINDOWS
from fakedev.devices.pci.driver import PciDriver, PciId
from fakedev.devices.pci.ecam import Ecam
from fakedev.devices.pci.fabric import Fabric
from fakedev.devices.pci.function import Function
from fakedev.devices.pci.plan import (
    BarPlan,
    BridgePlan,
    DriverPlan,
    FunctionPlan,
    LinkPlan,
    PciPlan,
)
from fakedev.devices.pci.registers import Register, RegisterBlock
from fakedev.devices.pci.settings import EcamWindow, Facts, PciSettings
from fakedev.model.memory import PhysicalMemory
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree
from fakedev.model.window import Target

MemoryOf = Callable[[BarPlan], PhysicalMemory]
"""Makes the memory behind a BAR, addressed from 0, with what the profile put there."""


class ProfileBus(PciBus):
    """The bus of a profile. `conf1`: configuration space is behind ports CF8 and CFC too."""

    conf1: bool = False


def build_fabric(
    plan: PciPlan, memory: PhysicalMemory, port_space: PhysicalMemory, memory_of: MemoryOf
) -> Fabric:
    """All functions, decoding as the firmware left them; ECAM and CF8/CFC where the plan has them.

    What is in `memory` already keeps its place. Raises PciError for a plan that nobody checked.
    """
    functions = [_function(one, memory_of) for one in plan.functions]
    fabric = Fabric(functions, memory, port_space)
    fabric.decode_all()
    for window in plan.ecam:
        first, size = window.first << 20, (window.last + 1 - window.first) << 20
        ecam = Ecam(fabric, domain=window.domain, padding=plan.ecam_padding)
        memory.map_window(window.base + first, size, ecam, name="ECAM", offset=first)
    if plan.conf1:
        port_space.map_window(PORT, SIZE, Conf1(fabric), name="PCI conf1")
    return fabric


def build_bus(
    plan: PciPlan, fabric: Fabric, iomem: ResourceTree, ioports: ResourceTree
) -> ProfileBus:
    """The bus as it is after boot: everything found, its nodes in the trees, drivers bound."""
    settings = PciSettings(
        cpus=plan.cpus,
        numa_nodes=frozenset({0, *(one.numa_node for one in plan.functions)} - {-1}),
        ecam=tuple(EcamWindow(*window) for window in plan.ecam),
        facts={_bdf(one): _facts(one) for one in plan.functions},
        replace_sysfs=plan.sysfs == "replace",
    )
    bus = ProfileBus(
        fabric,
        iomem=iomem,
        ioports=ioports,
        drivers=[_driver(one) for one in plan.drivers],
        settings=settings,
    )
    bus.conf1 = plan.conf1
    bus.boot()
    return bus


def build_ports(plan: PciPlan) -> ResourceTree:
    """The tree behind /proc/ioports, before the bus adds its nodes."""
    tree = ResourceTree.ioports()
    parents = [tree.root]
    for depth, start, end, name, flags in plan.ports:
        node = Resource(start, end, name, flags)
        tree.request_resource(parents[depth], node)
        parents[depth + 1 :] = [node]
    return tree


def _bdf(plan: FunctionPlan) -> Bdf:
    return Bdf(*plan[:4])


def _function(plan: FunctionPlan, memory_of: MemoryOf) -> Function:
    config = _chained(plan)
    if plan.bridge is not None:
        header.write_bridge(config, _bridge(plan.bridge))
    config.data[header.HEADER_TYPE] |= 0x80 if plan.multifunction else 0
    subsystem = plan.subvendor, plan.subdevice
    identity = header.Identity(
        plan.vendor, plan.device_id, plan.class_code, plan.revision, subsystem
    )
    header.write_identity(config, identity)
    made = Function(
        _bdf(plan),
        config,
        [_bar(bar, memory_of) for bar in plan.bars],
        on_unplug=cast("Any", plan.on_unplug),
        slot=plan.slot,
        reset_methods=plan.reset,
    )
    _registers(plan, made)
    return made


def _chained(plan: FunctionPlan) -> ConfigSpace:
    """A configuration space with the capabilities in it."""
    config = ConfigSpace(plan.config_size)
    for at, data, writable, clear in plan.capabilities:
        end = at + len(data)
        config.set(at, data)
        config.writable[at:end], config.clear[at:end] = writable, clear
    first = plan.capabilities[0].at if plan.capabilities else CONVENTIONAL
    if first < CONVENTIONAL:
        config.put(header.STATUS, 2, header.STATUS_CAPABILITIES)
        config.put(header.CAPABILITIES, 1, first)
    return config


def _registers(plan: FunctionPlan, function: Function) -> None:
    """Registers of the header, addresses, and the raw bytes of the profile on top."""
    config = function.config
    config.put(header.CACHE_LINE, 1, plan.cache_line)
    config.put(header.LATENCY, 1, plan.latency)
    config.put(header.BIST, 1, plan.bist)
    config.put(header.INTERRUPT_LINE, 1, plan.line)
    config.put(header.INTERRUPT_PIN, 1, plan.pin)
    config.put(header.COMMAND, 2, plan.command)
    config.put(header.STATUS, 2, config.get(header.STATUS, 2) | plan.status)
    for one in plan.bars:
        bar = function.bars[one.number]
        bar.place(config, one.start)
        if one.number == ROM_INDEX and one.enabled:
            config.put(bar.register, 1, config.get(bar.register, 1) | 1)
    for offset, data in plan.config:
        config.set(offset, data)


def _bridge(plan: BridgePlan) -> header.Bridge:
    io, memory, prefetch = (
        None if window is None else header.Span(window[0], window[0] + window[1] - 1)
        for window in (plan.io, plan.memory, plan.prefetch)
    )
    return header.Bridge(plan.primary, plan.secondary, plan.subordinate, io, memory, prefetch)


def _bar(plan: BarPlan, memory_of: MemoryOf) -> Bar:
    target: Target
    if plan.registers:
        target = RegisterBlock(plan.size, [
            Register(one.offset, one.width, cast("Any", one.access), one.reset, one.name)
            for one in plan.registers
        ])  # fmt: skip
    else:
        target = memory_of(plan)
    return Bar(
        plan.number,
        cast("Any", plan.kind),
        plan.size,
        target,
        cast("Any", plan.width),
        plan.prefetch,
    )


def _facts(plan: FunctionPlan) -> Facts:
    unlisted = {bar.number for bar in plan.bars if not bar.listed}
    if plan.bridge is not None and not plan.bridge.windows_listed:
        unlisted |= {WINDOWS, WINDOWS + 1, WINDOWS + 2}
    link = plan.link or LinkPlan()
    return Facts(
        irq=plan.irq,
        gsi=plan.gsi,
        numa_node=plan.numa_node,
        driver=plan.driver,
        enabled=plan.enabled,
        power_state=plan.power_state,
        dma_mask_bits=plan.dma_mask_bits,
        consistent_dma_mask_bits=plan.consistent_dma_mask_bits,
        d3cold_allowed=plan.d3cold_allowed,
        msi_irqs=plan.msi_irqs,
        unlisted=frozenset(unlisted),
        link_speed=link.speed,
        link_width=link.width,
        max_link_speed=link.max_speed,
        max_link_width=link.max_width,
        links=plan.links,
    )


def _driver(plan: DriverPlan) -> PciDriver:
    return PciDriver(
        plan.name,
        [PciId(*one) for one in plan.ids],
        claims="all" if plan.claims is None else plan.claims,
        exclusive=plan.exclusive,
        claim_name=plan.claim_name,
        module=plan.module,
        builtin=plan.builtin,
        loaded=plan.loaded,
        probe_error=plan.probe_error,
        msi=cast("Any", plan.msi),
        vectors=plan.vectors,
        enables=plan.enables,
        bus_master=plan.bus_master,
        dma_mask_bits=plan.dma_mask_bits,
        override_only=plan.override_only,
        uio=plan.uio,
    )
