"""Modules of persistent memory that are pulled out and put back."""

import errno
from typing import Any

from fakedev.devices.memory.poison import poison_of
from fakedev.devices.nd.modules import Modules
from fakedev.devices.nd.plan import ON_UNPLUG
from fakedev.devices.nd.region import Namespace, Region
from fakedev.model.effects import Reopened
from fakedev.model.errors import ControlError
from fakedev.model.poisoned import Table, without
from fakedev.model.ranges import page_round
from fakedev.model.window import Ones


class Removal(Modules):
    """Surprise removal."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ghosts: dict[str, Ones] = {}  # what answers instead of a region
        self._failed: dict[str, Table] = {}  # pages of a region that its removal poisoned

    # -- surprise removal ---------------------------------------------------------------------

    def unplug(self, name: str, *, on_unplug: str | None = None) -> Region:
        """The modules of a region are pulled out. Its mappings end as `on_unplug` says, then its claims.

        `sigbus`: they die. `all-ones`: they live on, and whatever is read there is ones. `poison`: they
        die, and the pages fail until a module is there again. None: as the plan says.

        Where kmem's memory is in use the range is burned: its resources stay until the next boot.
        EBUSY when it is ending already, ENODEV when it is out, EINVAL for what is none of the three.
        """
        region = self.region(name)
        after = region.plan.on_unplug if on_unplug is None else on_unplug
        if after not in ON_UNPLUG:
            known = ", ".join(ON_UNPLUG)
            raise ControlError(f"on_unplug: {after!r} is not one of {known}", errno=errno.EINVAL)

        def die() -> None:
            if not region.present:
                raise ControlError(f"{name} is not plugged in", errno=errno.ENODEV)
            self._touched.add(region.name)
            region.present = False
            if region.plan.listed:
                self._pull(region, after)
            else:
                self._end_lives(region)
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
            region.provisioned &= not replace
            self._mend(region, replace=replace)
            if region.plan.listed:
                self._unpark(region, replace=replace)
            self.host.record("plug", f"{name} plugged in", region.span)
            if not region.burned:
                region.renew()
            if "nfit" in self.modules and not region.burned:
                self.discover(region)
            self.host.publish(Reopened(page_round(region.span)))
        return region

    def _pull(self, region: Region, after: str) -> None:
        if after == "all-ones":
            self._ghosts[region.name] = Ones()
        else:
            self._end_lives(region)
            self.host.revoke(region.span, f"{region.name} was pulled out")  # all at once
        self._park(region)
        if after == "poison":
            self._fail(region)

    def _end_lives(self, region: Region) -> None:
        for namespace in region.namespaces:
            self.end_lives(namespace)

    def _lay(self, region: Region) -> None:
        ghost = self._ghosts.pop(region.name, None)
        if ghost is not None:
            self.memory.unmap_window(ghost)

    def _fail(self, region: Region) -> None:
        """`on_unplug: poison`: its pages give errors until a module is there."""
        poison = poison_of(self.host)
        good: Table = (region.span,)
        for bad in poison.hard:
            good = without(good, bad)
        self._failed[region.name] = good
        for span in good:
            poison.add(span)

    def _mend(self, region: Region, *, replace: bool) -> None:
        """A module is there: what failed without one is good, and all of another one."""
        failed = self._failed.pop(region.name, ())
        for span in (region.span,) if replace else failed:
            poison_of(self.host).replaced(span)

    def _park(self, region: Region) -> None:
        """What decoded there is kept, with every store made until now; nothing answers, or a ghost.

        What is mapped still turns into ones here, while no page of it is cached.
        """
        ghost = self._ghosts.get(region.name)

        def take() -> None:
            with self.host.lock:
                for namespace in region.namespaces:
                    if ghost is not None:
                        _turn_to_ones(namespace)
                    self.end_lives(namespace)
                    self.drain(namespace)
                region.parked = self.memory.detach(*region.span)
                if ghost is not None:  # also where the bus of this machine reads zeros
                    self.memory.map_window(*region.span, ghost, name=f"{region.name} (out)")

        self.host.settle(region.span, take)

    def _unpark(self, region: Region, *, replace: bool) -> None:
        def put() -> None:
            with self.host.lock:
                self._lay(region)
                if replace or not region.parked:
                    self.memory.add(*region.span, name=f"{region.name} (another)")
                else:
                    self.memory.reattach(region.parked)
                region.parked = ()

        self.host.settle(region.span, put)

    def all_plugged(self) -> None:
        """What a reset does: no ghost, and no page that failed because a module was out."""
        with self.host.lock:
            for region in self.regions:
                self._lay(region)
        self._failed.clear()


def _turn_to_ones(namespace: Namespace) -> None:
    """Mappings of it outlive it."""
    for life in (namespace.life, namespace.dax.life if namespace.dax else None):
        if life is not None:
            life.ones = True
