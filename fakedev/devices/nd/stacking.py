"""Namespaces, and the personalities stacked on them (`pmem.c`, `pfn_devs.c`, `dax/pmem.c`, `claim.c`)."""

import errno
import uuid

from fakedev.devices.nd import infoblock
from fakedev.devices.nd.core import refusal
from fakedev.devices.nd.dax import DaxDevice, Life
from fakedev.devices.nd.infoblock import InfoBlock
from fakedev.devices.nd.medium import Medium
from fakedev.devices.nd.region import CLASSES, Namespace, Personality
from fakedev.model.errors import FakedevError
from fakedev.model.ranges import PAGE_SIZE, Range

DRIVERS = {"btt": "nd_pmem", "pfn": "nd_pmem", "dax": "dax_pmem"}


class Stacking(Medium):
    """Probes of nd_pmem and dax_pmem, and what undoes them."""

    # -- a namespace as it is -----------------------------------------------------------------

    def probe_namespace(self, namespace: Namespace) -> None:
        """`nd_pmem_probe`: a block device, or ENXIO when an info block makes another device of it."""
        if namespace.claim is not None:
            raise refusal(f"{namespace.name} is claimed by {namespace.claim.name}", errno.ENXIO)
        if namespace.span.size < PAGE_SIZE or namespace.label.uuid is None:
            raise refusal(f"{namespace.name} has no size, or no uuid", errno.ENODEV)
        if not namespace.force_raw:
            for kind in ("pfn", "dax"):
                if namespace.label.holder_class in {"", kind}:
                    self._detect(namespace, kind)
        self.attach_disk(namespace)

    def _detect(self, namespace: Namespace, kind: str) -> None:
        """`nd_pfn_probe`, `nd_dax_probe`: the device that an info block speaks of is registered (ENXIO).

        EOPNOTSUPP for a block that does not fit; one that cannot be read is as none.
        """
        block = self.block_but_for(namespace, kind, errno.ENXIO)
        if block is None:
            return
        made = namespace.region.add(kind)
        made.uuid, made.align = uuid.UUID(bytes=block.uuid), block.align
        made.mode = next(word for word, n in infoblock.MODES.items() if n == block.mode)
        attach(made, namespace)
        if DRIVERS[kind] in self.modules:
            try:
                self.probe(made)
            except FakedevError as error:
                self.host.record("error", f"{made.name}: {error}", namespace.span)
        raise refusal(f"{namespace.name} is used by {made.name}", errno.ENXIO)

    def attach_disk(self, namespace: Namespace) -> None:
        """`pmem_attach_disk`: the namespace is claimed as a whole. ResourceConflictError (EBUSY)."""
        if namespace.region.plan.listed:
            namespace.node = self.claim(namespace.span, namespace.name)
        self.modules.add("nd_pmem")
        namespace.life = Life(namespace.name)
        namespace.driver = "" if namespace.claim else "nd_pmem"

    # -- what is stacked on it ----------------------------------------------------------------

    def probe(self, which: Personality, *, driver: str | None = None, dataoff: int = 0) -> None:
        """nd_pmem on a pfn, or dax_pmem on a dax. All or nothing; ControlError.

        `driver` ("" for a pfn) has to take the dax device, and settings win over what the medium says;
        with None it is as the kernel does it: a driver that is loaded may take it.
        """
        namespace = which.namespace
        if namespace is None or which.uuid is None:
            raise refusal(f"{which.name} has no namespace, or no uuid", errno.ENODEV)
        if namespace.driver:
            raise refusal(f"{namespace.name} is active, can't bind {which.name}", errno.EBUSY)
        if which.kind == "btt":
            raise refusal(f"{which.name}: sector mode is not simulated", errno.ENXIO)
        block, fresh = self._block_for(which, namespace, dataoff, force=driver is not None)
        which.data = block.data(namespace.span)
        try:
            if which.kind == "pfn":
                self.attach_disk(namespace)
            else:
                self._attach_dax(which, namespace, driver)
        except FakedevError:
            which.data = None
            raise
        if fresh and block.dataoff >= infoblock.RESERVED:
            self.write_block(namespace, block)
        which.driver = DRIVERS[which.kind]
        namespace.region.advance(which)

    def _block_for(
        self, which: Personality, namespace: Namespace, dataoff: int, *, force: bool
    ) -> tuple[InfoBlock, bool]:
        """`nd_pfn_init`: the block that is there for this device, or a new one (True).

        EINVAL for one with its uuid and other settings, unless these are to win (`force`).
        """
        name = which.uuid or uuid.UUID(int=0)
        passed = (errno.ENXIO, errno.EOPNOTSUPP) if force else ()
        block = self.block_but_for(namespace, which.kind, *passed)
        if block is not None and block.uuid == name.bytes:
            if (block.align, block.mode) == (which.align, infoblock.MODES[which.mode]):
                return block, False
            if not force:
                raise refusal(f"{which.name}: init failed, settings mismatch", errno.EINVAL)
        if namespace.region.read_only and not force:
            raise refusal(f"{which.name} is read-only, unable to init metadata", errno.ENXIO)
        return infoblock.new_block(
            which.kind, namespace.span, name, namespace.uuid.bytes,
            mode=which.mode, align=which.align, dataoff=dataoff,
        ), True  # fmt: skip

    def _attach_dax(self, which: Personality, namespace: Namespace, driver: str | None) -> None:
        """`__dax_pmem_probe`: the metadata is claimed; the rest becomes `daxR.I` of the dax bus."""
        dax = self.dax_of(namespace, which)
        if driver:
            self.check_driver(dax, driver)
        if namespace.region.plan.listed:
            metadata = Range(namespace.span.start, dax.span.start - namespace.span.start)
            namespace.node = self.claim(metadata, namespace.name)
        try:
            if driver:
                self.take(dax, driver)
            else:
                self.autobind(dax)
        except FakedevError:
            self._release(namespace)
            raise
        self.modules.add("dax_pmem")
        namespace.dax = dax

    def autobind(self, dax: DaxDevice) -> None:
        """The device core offers a new device to the drivers that are loaded; a refusal is logged."""
        drivers = ("kmem",) if dax.name in self.kmem_first else ("device_dax",)
        for driver in drivers if self.modules.issuperset(drivers) else ():
            try:
                self.take(dax, driver)
            except FakedevError as error:
                self.host.record("error", f"{driver} {dax.name}: probe failed: {error}", dax.span)

    def dax_of(self, namespace: Namespace, which: Personality) -> DaxDevice:
        """The device-dax that a namespace would have with a personality; nothing is claimed."""
        region = namespace.region
        span = which.data or namespace.data
        if span.size <= 0:
            raise refusal(f"{namespace.name} is too small for devdax", errno.EINVAL)
        return DaxDevice(
            region.number, span, path=f"{self.bus_path}/{region.name}/{which.name}",
            align=which.align, numa_node=region.plan.numa_node,
            target_node=region.plan.target_node, listed=region.plan.listed, index=namespace.index,
        )  # fmt: skip

    @property
    def bus_path(self) -> str:
        """The directory of `ndbus0`."""
        return f"{self.plan.path}/ndbus0"

    # -- modes as a profile and `dax-mode` name them --------------------------------------------

    def start(self, namespace: Namespace, mode: str) -> None:
        """Use a namespace in a mode: it has none now. All or nothing; ControlError, EBUSY or EINVAL."""
        if not namespace.span.size:
            raise refusal(f"{namespace.name} has no size", errno.ENODEV)
        kind = CLASSES.get(mode)
        if kind is None:
            made = self.has_block(namespace)
            self.attach_disk(namespace)
            if made:
                self.write_block(namespace, None)
            return
        which = namespace.region.seed(kind)
        name = uuid.UUID(namespace.plan.uuid) if namespace.plan.uuid else namespace.label.uuid
        which.uuid, which.align, which.mode = name, namespace.plan.align, "pmem"
        attach(which, namespace)
        driver = {"devdax": "device_dax", "kmem": "kmem"}.get(mode, "")
        try:
            self.probe(which, driver=driver, dataoff=namespace.plan.metadata)
        except FakedevError:
            detach_and_reset(which)
            raise

    # -- ends ---------------------------------------------------------------------------------

    @staticmethod
    def end_lives(namespace: Namespace) -> None:
        """Nothing can be opened or mapped any more; what is mapped is for the caller to revoke."""
        for life in _lives(namespace):
            life.alive = False

    @staticmethod
    def drain(namespace: Namespace) -> None:
        """After the revoke: no store through a mapping is under way."""
        for life in _lives(namespace):
            life.drained = True

    def kill_namespace(self, namespace: Namespace) -> None:
        """Everything that is open in a namespace or maps it dies."""
        if namespace.life is not None:
            namespace.life.alive = False
            self.host.revoke(namespace.span, f"{namespace.name} is gone")
            namespace.life.drained = True
        if namespace.dax is not None:
            self.kill(namespace.dax)

    def stop(self, namespace: Namespace) -> None:
        """The drivers' remove, after `kill_namespace`: what is stacked keeps its settings, or its RAM leaks."""
        dax = namespace.dax
        if dax is not None:
            self.let_go(dax)
            if not dax.leaked:
                namespace.dax = None
        self._release(namespace)
        namespace.life = None
        namespace.driver = ""
        if namespace.claim is not None:
            namespace.claim.driver = ""
            namespace.claim.data = None

    def _release(self, namespace: Namespace) -> None:
        if namespace.node is not None:
            self.host.release(namespace.node.span)
            namespace.node = None


def attach(which: Personality, namespace: Namespace) -> None:
    """`__nd_attach_ndns`."""
    which.namespace = namespace
    namespace.claim = which


def detach_and_reset(which: Personality) -> None:
    """`nd_detach_and_reset`: a seed is as new, another idle device is gone."""
    if which.namespace is not None:
        which.namespace.claim = None
        which.namespace = None
    if which.region.seeds.get(which.kind) is which:
        which.clear()
    elif not which.driver:
        which.region.stack.remove(which)


def _lives(namespace: Namespace) -> list[Life]:
    """Of the block device, and of the dax device on it."""
    found = (namespace.life, namespace.dax.life if namespace.dax else None)
    return [life for life in found if life is not None]
