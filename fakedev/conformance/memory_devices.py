"""`info memory-devices` of QEMU's monitor, about the devices of a machine."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fakedev.model.machine import Machine


class _Device(NamedTuple):
    """One memory device: where it lies, and its lines."""

    start: int
    head: str
    fields: dict[str, Any]


def memory_devices(machine: Machine) -> str:
    """The text, devices by address."""
    devices = sorted([*_virtio_mem(machine), *_dimms(machine)])
    return "".join(_text(device) for device in devices)


def _text(device: _Device) -> str:
    lines = [f"Memory device {device.head}"]
    lines += [f"  {name}: {value}" for name, value in device.fields.items()]
    return "".join(f"{line}\r\n" for line in lines)


def _virtio_mem(machine: Machine) -> Iterator[_Device]:
    devices = machine.virtio_mem.devices.items() if machine.virtio_mem is not None else ()
    for name, device in devices:
        fields = {
            "memaddr": f"{device.span.start:#x}",
            "node": device.plan.node,
            "requested-size": device.requested_size,
            "size": device.plugged_size,
            "max-size": device.span.size,
            "block-size": device.plan.block_size,
            "memdev": f"/objects/{name.replace('vm', 'vmem')}",
        }
        yield _Device(device.span.start, f'[virtio-mem]: "{name}"', fields)


def _dimms(machine: Machine) -> Iterator[_Device]:
    """NVDIMMs, which QEMU numbers by address, and the DIMMs that are plugged behind them."""
    regions = sorted(region.span for region in machine.nd.regions) if machine.nd is not None else []
    for slot, span in enumerate(regions):
        fields = _slot(slot, span.start, span.size, f"nv{slot}", hotplugged=False)
        yield _Device(span.start, f'[nvdimm]: "nvd{slot}"', fields)
    dimms = machine.blocks.dimms if machine.blocks is not None else None
    present = [plan for name, plan in dimms.plans.items() if name in dimms.present] if dimms else []
    for slot, plan in enumerate(present, len(regions)):
        memdev = plan.slot.replace("dimm", "dm")
        fields = _slot(slot, plan.at, plan.size, memdev, hotplugged=True)
        yield _Device(plan.at, f'[dimm]: "{plan.slot}"', fields)


def _slot(slot: int, at: int, size: int, memdev: str, *, hotplugged: bool) -> dict[str, Any]:
    return {
        "addr": f"{at:#x}",
        "slot": slot,
        "node": 0,
        "size": size,
        "memdev": f"/objects/{memdev}",
        "hotplugged": str(hotplugged).lower(),
        "hotpluggable": "true",
    }
