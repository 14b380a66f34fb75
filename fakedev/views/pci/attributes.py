"""The text attributes of a function (`drivers/pci/pci-sysfs.c`), as one table."""

from fakedev.devices.pci import express
from fakedev.views.pci import extended, link
from fakedev.views.pci.spec import Spec, Specs, admin, group, shown
from fakedev.views.pci.subject import Subject
from fakedev.views.pci.texts import modalias, resource, uevent
from fakedev.views.sysfs import take_uevent

_DISPLAY_VGA = 0x0300
_ARI_FORWARDING = 0x20


def _locked_resource(subject: Subject) -> str:
    with subject.machine.lock:
        return resource(subject.device)


def _locked_uevent(subject: Subject) -> str:
    with subject.machine.lock:
        return uevent(subject.device)


def _irq(subject: Subject) -> int:
    """The first vector of MSI (not of MSI-X), else the INTx line."""
    device = subject.device
    with subject.machine.lock:
        return device.msi_irqs[0] if device.msi == "msi" and device.msi_irqs else device.irq


def _ari(subject: Subject) -> int:
    """`pci_ari_enabled` of the bus: the port above forwards to functions from 8 on."""
    parent = subject.device.parent
    if parent is None:
        return 0
    port = Subject(subject.site, parent)
    if not port.express or port.version < 2:
        return 0
    return int(bool(port.get(port.express + express.DEVICE_CONTROL_2, 2) & _ARI_FORWARDING))


def _described(subject: Subject) -> bool:
    return subject.site.extras(subject.device.path).lookup("firmware_node") is not None


def _awaits_supplier(subject: Subject) -> bool:
    """`waiting_for_supplier`: a function that firmware describes and no driver has.

    The kernel takes it away at the first binding for good; here it is back after an unbind.
    """
    device = subject.device
    return device.driver is None and _described(subject)


_IDENTITY: Specs = {
    "vendor": shown(lambda s: f"{s.device.vendor:#06x}"),
    "device": shown(lambda s: f"{s.device.device:#06x}"),
    "subsystem_vendor": shown(lambda s: f"{s.device.subvendor:#06x}"),
    "subsystem_device": shown(lambda s: f"{s.device.subdevice:#06x}"),
    "revision": shown(lambda s: f"{s.device.revision:#04x}"),
    "class": shown(lambda s: f"{s.device.class_:#08x}"),
    "modalias": shown(lambda s: modalias(s.device)),
    "resource": Spec(0o444, _locked_resource),
    "uevent": Spec(0o644, _locked_uevent, lambda _, text, opener: take_uevent(text, opener)),
}
_STATE: Specs = {
    "irq": shown(_irq),
    "local_cpus": shown(lambda s: s.device.local_cpus),
    "local_cpulist": shown(lambda s: s.device.local_cpulist),
    "dma_mask_bits": shown(lambda s: s.device.dma_mask_bits),
    "consistent_dma_mask_bits": shown(lambda s: s.device.consistent_dma_mask_bits),
    "power_state": shown(lambda s: s.device.power_state),
    "ari_enabled": shown(_ari),
    "boot_vga": shown(
        lambda s: int(s.device.boot_vga), when=lambda s: s.device.class_ >> 8 == _DISPLAY_VGA
    ),
    "waiting_for_supplier": shown(lambda _: 0, when=_awaits_supplier),
}
_SETTINGS: Specs = {
    "enable": Spec(
        0o644,
        lambda s: f"{s.device.enable_count}\n",
        admin(lambda s, text, _: s.bus.set_enable(s.device, text)),
        verb=True,
    ),
    "numa_node": Spec(
        0o644,
        lambda s: f"{s.device.numa_node}\n",
        admin(lambda s, text, _: s.bus.set_numa_node(s.device, text)),
        verb=True,
    ),
    "msi_bus": Spec(
        0o644,
        lambda s: f"{int(s.device.msi_bus)}\n",
        admin(lambda s, text, _: s.bus.set_msi_bus(s.device, text)),
        verb=True,
    ),
    "driver_override": Spec(
        0o644,
        lambda s: f"{s.device.driver_override or '(null)'}\n",
        lambda s, text, _: s.bus.set_driver_override(s.device, text),
        verb=True,
    ),
    "broken_parity_status": Spec(
        0o644,
        lambda s: f"{int(s.device.broken_parity_status)}\n",
        lambda s, text, _: s.bus.set_broken_parity_status(s.device, text),
        verb=True,
    ),
    "d3cold_allowed": Spec(
        0o644,
        lambda s: f"{int(s.device.d3cold_allowed)}\n",
        lambda s, text, _: s.bus.set_d3cold_allowed(s.device, text),
        verb=True,
    ),
}
_VERBS: Specs = {
    "remove": Spec(0o220, None, lambda s, text, _: s.bus.remove(s.device, text), verb=True),
    "rescan": Spec(0o200, None, lambda s, text, _: s.bus.rescan_device(s.device, text), verb=True),
}
_RESET: dict[str, Spec] = group(
    lambda s: s.resettable,
    {
        "reset": Spec(
            0o200, None, lambda s, text, _: s.bus.reset_function(s.device, text), verb=True
        ),
        "reset_method": Spec(
            0o644,
            lambda s: f"{' '.join(s.device.reset_methods)}\n",
            lambda s, text, _: s.bus.set_reset_method(s.device, text),
            verb=True,
        ),
    },
)
_RESET["reset_method"] = _RESET["reset_method"]._replace(
    when=lambda s: s.resettable and s.machine.rules.has_reset_method
)
_BRIDGE: Specs = group(
    lambda s: s.device.function.is_bridge,
    {
        "secondary_bus_number": shown(lambda s: s.get(0x19, 1)),
        "subordinate_bus_number": shown(lambda s: s.get(0x1A, 1)),
        "reset_subordinate": Spec(
            0o200, None, lambda s, text, _: s.bus.reset_subordinate(s.device, text), verb=True
        ),
    },
)

SPECS: Specs = {
    **_IDENTITY,
    **_STATE,
    **_SETTINGS,
    **_VERBS,
    **_RESET,
    **_BRIDGE,
    **link.SPEEDS,
    **extended.SPECS,
}
