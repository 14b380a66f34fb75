"""What is written below `/sys/bus/dax/drivers`, and modes of namespaces."""

import errno
from contextlib import suppress

from fakedev.devices.nd.dax import DaxDevice
from fakedev.devices.nd.plan import MODES
from fakedev.devices.nd.region import Namespace
from fakedev.devices.nd.settings import Settings
from fakedev.devices.nd.stacking import detach_and_reset
from fakedev.model.errors import ControlError, FakedevError
from fakedev.model.ranges import Range

WORDS = {"system-ram": "kmem", "memory": "fsdax", "dax": "devdax"}


class Binding(Settings):
    """Verbs that give memory to another driver."""

    # -- modes --------------------------------------------------------------------------------

    def set_mode(self, name: str, mode: str) -> str:
        """Use a namespace or a dax device in another mode; returns its name.

        ENODEV: no such thing. EINVAL: no such mode, or kmem has no whole block. EBUSY: its RAM is
        online, or it is ending already.
        """
        mode = WORDS.get(mode, mode)
        if mode not in MODES:
            raise ControlError(f"there is no mode {mode!r}: {', '.join(MODES)}",
                               errno=errno.EINVAL)  # fmt: skip
        lone = next((d for d in self.hmem if d.name == name), None)
        if lone is not None:
            return self._set_driver(lone, mode)
        namespace = self.namespace(name)
        before, used = namespace.mode, namespace.enabled
        idle = namespace.dax is not None and not namespace.dax.driver

        def again() -> None:
            if namespace.claim is not None:
                detach_and_reset(namespace.claim)
            try:
                self.start(namespace, mode)
            except FakedevError:
                if used:
                    with self.host.unasked():
                        self.start(namespace, before)
                    if idle and namespace.dax is not None:
                        self.let_go(namespace.dax)
                raise
            self.host.record("mode", f"{namespace.name} is {mode}", namespace.span)

        self._ended(namespace, lambda: self._check_mode(namespace, mode), again)
        return namespace.name

    def _check_mode(self, namespace: Namespace, mode: str) -> None:
        dax = namespace.dax
        if dax is not None and dax.leaked:
            raise ControlError(f"{dax.name} is leaked until the next boot (EBUSY)",
                               errno=errno.EBUSY)  # fmt: skip
        self._check_offline(dax)
        wanted = [namespace.span]
        if mode in {"devdax", "kmem"}:
            idle = self.dax_of(namespace, namespace.region.seed("dax"))
            data = self.check_driver(idle, "kmem" if mode == "kmem" else "device_dax")
            head = idle.span.start - namespace.span.start
            wanted = [Range(namespace.span.start, head), data]
        mine = (namespace.node, dax.node if dax is not None else None)
        for claim in self.host.claims:
            if claim not in mine and any(claim.span.overlaps(one) for one in wanted):
                raise ControlError(f"{namespace.name}: {claim} is in the way (EBUSY)",
                                   errno=errno.EBUSY)  # fmt: skip

    def _check_offline(self, dax: DaxDevice | None) -> None:
        busy = self.kmem_online(dax) if dax is not None else []
        if busy and dax is not None:
            raise ControlError(f"{dax.name}: {', '.join(busy[:4])} must be offline first "
                               f"(EBUSY): fakedev ctl offline {dax.ram}", errno=errno.EBUSY)  # fmt: skip

    def _set_driver(self, dax: DaxDevice, mode: str) -> str:
        driver = {"devdax": "device_dax", "kmem": "kmem"}.get(mode)
        if driver is None:
            raise ControlError(f"{dax.name} is devdax or kmem, never {mode}", errno=errno.EINVAL)
        if dax.driver == driver:
            return dax.name
        with self.verb():
            self._check_offline(dax)
            idle = DaxDevice(dax.region_id, dax.span, path="", align=dax.align, numa_node=0,
                             target_node=dax.target_node)  # fmt: skip
            self.check_driver(idle, driver)
        before = dax.driver
        if before:
            self.unbind(before, dax.name)
        try:
            self.bind(driver, dax.name)
        except FakedevError:
            if before:
                with self.verb(), self.host.unasked(), suppress(FakedevError):
                    self.bind(before, dax.name)
            raise
        return dax.name

    # -- the drivers of dax, as sysfs has them ------------------------------------------------

    def bind(self, driver: str, text: str) -> None:
        """Write to `/sys/bus/dax/drivers/DRIVER/bind`. ENODEV, EBUSY, EINVAL."""
        with self.change():
            dax = self.dax_device(text.strip())
            if self.ending(dax.span):
                raise ControlError(f"{dax.name} is ending (EBUSY)", errno=errno.EBUSY)
            self._touch(dax)
            self.take(dax, driver)

    def unbind(self, driver: str, text: str) -> None:
        """Write to `unbind`: mappings die, pins are waited for. ENODEV for what the driver does not have.

        kmem whose blocks are not all offline lets the device go and leaks its memory.
        """
        dax = self.dax_device(text.strip())

        def die() -> None:
            if dax.driver != driver:
                raise ControlError(f"{driver} has no {dax.name}", errno=errno.ENODEV)
            self._touch(dax)
            self.kill(dax)

        self._end(dax.name, dax.span, die, lambda: self.let_go(dax))

    def new_id(self, driver: str, text: str) -> None:
        """Write to `new_id`: the name of a device; it is bound if nobody has it. EINVAL for other words."""
        name = self._id(text)
        with self.change():
            self.dax_ids[driver].add(name)
            for dax in self.dax_devices():
                if dax.name == name and not dax.driver and not dax.leaked:
                    with suppress(FakedevError):
                        self._touch(dax)
                        self.take(dax, driver)

    def remove_id(self, driver: str, text: str) -> None:
        """Write to `remove_id`. EINVAL for what is no name of a device."""
        with self.verb():
            self.dax_ids[driver].discard(self._id(text))

    @staticmethod
    def _id(text: str) -> str:
        name = text.strip()
        first, dot, second = name.removeprefix("dax").partition(".")
        if not name.startswith("dax") or not dot or not (first.isdigit() and second.isdigit()):
            raise ControlError(f"{name!r} is no daxR.I", errno=errno.EINVAL)
        return name
