"""The kernel modules of persistent memory and dax: loaded and unloaded where the kernel allows it."""

import errno
from collections.abc import Callable

from fakedev.devices.nd.binding import Binding
from fakedev.devices.nd.core import refusal
from fakedev.devices.nd.dax import DRIVERS as DAX_DRIVERS
from fakedev.devices.nd.region import Namespace, Region
from fakedev.model.errors import ControlError, FakedevError

NEEDS = {
    "libnvdimm": (),
    "nd_btt": ("libnvdimm",),
    "nfit": ("libnvdimm",),
    "nd_pmem": ("libnvdimm", "nd_btt"),
    "dax_pmem": ("libnvdimm",),
    "device_dax": (),
    "kmem": (),
}
"""Modules with those that they use."""
ALL = tuple(NEEDS)
_BY_ALIAS = (
    "nd_pmem",
    "dax_pmem",
)  # what the devices that nfit finds ask for (nd:t4, nd:t5, nd:t7)


class Modules(Binding):
    """modprobe and rmmod."""

    def modprobe(self, name: str) -> bool:
        """Load a module and what it needs; devices that wait for it get a driver. False for other modules.

        nfit brings the drivers of what it finds; device_dax and kmem come when they are asked for.

        EBUSY under `deny-claim`: processes map what it would claim, so that nothing gets a driver. It
        is not loaded then, and its regions are not found.
        """
        if name not in NEEDS or (name == "nfit" and not self.regions):
            return False
        with self.change():
            self.denials.clear()
            mine = [name, *(_BY_ALIAS if name == "nfit" else ())]
            new = [one for one in mine if one not in self.modules]
            for one in (*NEEDS[name], *new):
                self._load(one)
            undo = self._discover_all() if name == "nfit" else []
            if name in new and self.denials and not any(self._users(one) for one in new):
                self._unload_denied(new, undo)
                raise ControlError(f"{name} is not loaded: {self.denials[0]}", errno=errno.EBUSY)
        return True

    def _discover_all(self) -> list[tuple[Region, bool]]:
        """Regions that were not known, and now are; and whether they were `provisioned` before."""
        found = [(r, r.provisioned) for r in self.regions if r.present and not r.known]
        for region, _ in found:
            self._touched.add(region.name)
            self.discover(region)
        return found

    def _unload_denied(self, modules: list[str], found: list[tuple[Region, bool]]) -> None:
        """As before they were loaded: nothing has a driver of theirs, and regions are not known."""
        for region, provisioned in found:
            self.lose(region)
            region.provisioned = provisioned
            region.renew()
        for name in modules:
            self.modules.discard(name)
            self.host.record("module", f"{name} unloaded")

    def _load(self, name: str) -> None:
        if name in self.modules:
            return
        for one in NEEDS[name]:
            self._load(one)
        self.modules.add(name)
        self.host.record("module", f"{name} loaded")
        if name == "device_dax":
            for dax in self.dax_devices():
                if not dax.driver and not dax.leaked:
                    self._touch(dax)
                    self.autobind(dax)
        for namespace in self.namespaces() if name in _BY_ALIAS else ():
            if not namespace.enabled:
                self._touched.add(namespace.region.name)
                self._offer(name, namespace)

    def _offer(self, name: str, namespace: Namespace) -> None:
        """`driver_attach`: a driver that is new is offered what has none."""
        claim = namespace.claim
        try:
            if claim is not None:
                if (claim.kind == "dax") == (name == "dax_pmem"):
                    self.probe(claim)
            elif name == "nd_pmem":
                self.probe_namespace(namespace)
        except FakedevError as error:
            self.host.record("error", f"{namespace.name}: {error}", namespace.span)

    # -- rmmod --------------------------------------------------------------------------------

    def rmmod(self, name: str) -> bool:
        """Unload a module; its devices lose their driver. False for other modules.

        ENOENT: not loaded. EAGAIN: another module uses it, or a region pins nfit.
        """
        if name not in NEEDS:
            return False
        with self.verb():
            if name not in self.modules:
                raise refusal(f"{name} is not loaded", errno.ENOENT)
            users = [one for one in self.modules if name in NEEDS[one]]
            if name == "nfit":
                users += [region.name for region in self.regions if region.enabled]
            if users:
                raise refusal(f"{name} is in use by {', '.join(sorted(users))}", errno.EAGAIN)
        for letting_go in self._users(name):
            letting_go()
        with self.change():
            self.modules.discard(name)
            if name == "nfit":
                for region in self.regions:
                    self._touched.add(region.name)
                    self.lose(region)
            self.host.record("module", f"{name} unloaded")
        return True

    def _users(self, name: str) -> list[Callable[[], None]]:
        """What unbinds each device of the drivers in a module."""
        if name in DAX_DRIVERS:
            mine = [dax.name for dax in self.dax_devices() if dax.driver == name]
            return [lambda n=n: self.unbind(name, n) for n in mine]  # type: ignore[misc]
        found = [n.claim or n for n in self.namespaces()]
        mine = [one.name for one in found if one.driver == name]
        return [lambda n=n: self.nd_unbind(name, n) for n in mine]  # type: ignore[misc]
