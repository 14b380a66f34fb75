"""Modules of persistent memory that are pulled out and put back."""

import errno

from fakedev.devices.nd.binding import Binding
from fakedev.devices.nd.region import Region
from fakedev.model.effects import Reopened
from fakedev.model.errors import ControlError
from fakedev.model.ranges import page_round


class Removal(Binding):
    """Surprise removal."""

    # -- surprise removal ---------------------------------------------------------------------

    def unplug(self, name: str) -> Region:
        """The modules of a region are pulled out. Every mapping of it dies, then its claims end.

        Where kmem's memory is in use the range is burned: its resources stay until the next boot.
        EBUSY when it is ending already, ENODEV when it is out.
        """
        region = self.region(name)

        def die() -> None:
            if not region.present:
                raise ControlError(f"{name} is not plugged in", errno=errno.ENODEV)
            self._touched.add(region.name)
            region.present = False
            for namespace in region.namespaces:
                self.end_lives(namespace)
            if region.plan.listed:  # all mappings in one go: there may be thousands
                self.host.revoke(region.span, f"{name} was pulled out")
                for namespace in region.namespaces:
                    self.drain(namespace)
                self._park(region)
            self.host.record("unplug", f"{name} pulled out", region.span)

        def end() -> None:
            for namespace in region.namespaces:
                self.stop(namespace)
            self.lose(region)
            if region.burned:
                self.host.record("error", f"{name}: its range is burned until the next boot",
                                 region.span)  # fmt: skip

        self._end(region.name, region.span, die, end)
        return region

    def plug(self, name: str, *, replace: bool = False) -> Region:
        """Put the modules of a region back, or (`replace`) others, whose bytes are all zero.

        EBUSY when they are in, or the last ones have not been let go of.
        """
        with self.change():
            region = self.region(name)
            if region.present or region.known:
                raise ControlError(f"{name} is plugged in, or not let go of yet (EBUSY)",
                                   errno=errno.EBUSY)  # fmt: skip
            self._touched.add(region.name)
            region.present = True
            if region.plan.listed:
                self._unpark(region, replace=replace)
            self.host.record("plug", f"{name} plugged in", region.span)
            if not region.burned:
                region.renew()
            if self.modules and not region.burned:
                self.discover(region)
            self.host.publish(Reopened(page_round(region.span)))
        return region

    def _park(self, region: Region) -> None:
        """What decoded there is kept; now nothing answers."""

        def take() -> None:
            with self.host.lock:
                region.parked = self.memory.detach(*region.span)

        self.host.settle(region.span, take)

    def _unpark(self, region: Region, *, replace: bool) -> None:
        def put() -> None:
            with self.host.lock:
                if replace or not region.parked:
                    self.memory.add(*region.span, name=f"{region.name} (another)")
                else:
                    self.memory.reattach(region.parked)
                region.parked = ()

        self.host.settle(region.span, put)
