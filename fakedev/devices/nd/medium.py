"""The info blocks that lie on the medium of namespaces."""

import errno
from contextlib import suppress

from fakedev.devices.nd import infoblock
from fakedev.devices.nd.core import refusal
from fakedev.devices.nd.infoblock import InfoBlock
from fakedev.devices.nd.region import Namespace
from fakedev.devices.nd.taking import Taking
from fakedev.model.errors import ControlError
from fakedev.model.poisoned import first_in
from fakedev.model.ranges import Range


class Medium(Taking):
    """What the drivers of namespaces read and write themselves."""

    def _block_at(self, namespace: Namespace) -> Range:
        return Range(namespace.span.start + infoblock.PLACE, infoblock.SIZE)

    def read_block(self, namespace: Namespace, kind: str) -> InfoBlock | None:
        """The info block of a kind that a namespace has. ControlError: ENXIO, EOPNOTSUPP."""
        if namespace.span.size < infoblock.RESERVED:
            return None
        block = infoblock.decode(self._raw_block(namespace), kind, namespace.uuid.bytes)
        if block is not None:
            infoblock.check(block, namespace.span)
        return block

    def block_but_for(self, namespace: Namespace, kind: str, *passed: int) -> InfoBlock | None:
        """As `read_block`; a block that is wrong in one of these ways is none."""
        try:
            return self.read_block(namespace, kind)
        except ControlError as error:
            if error.errno in passed:
                return None
            raise

    def _raw_block(self, namespace: Namespace) -> bytes:
        if not namespace.region.plan.listed:
            return namespace.medium.ljust(infoblock.SIZE, b"\0")
        place = self._block_at(namespace)
        poisoned = getattr(self.host, "poisoned", ())
        if poisoned and first_in(poisoned, *place) is not None:
            raise refusal(f"{namespace.name}: the info block cannot be read", errno.ENXIO)
        raw: bytes = self.host.settle(place, lambda: self.memory.read(*place))
        return raw

    def write_block(self, namespace: Namespace, block: InfoBlock | None) -> None:
        """Put an info block on the medium; None takes away what is there."""
        raw = block.encode() if block is not None else bytes(infoblock.SIZE)
        if not namespace.region.plan.listed:
            namespace.medium = raw
            return
        place = self._block_at(namespace)

        def put() -> None:
            with self.host.lock:
                self.memory.write(place.start, raw)

        self.host.settle(place, put)

    def has_block(self, namespace: Namespace) -> bool:
        """Whether there is something that looks like an info block."""
        if namespace.span.size < infoblock.RESERVED:
            return False
        with suppress(ControlError):
            return self._raw_block(namespace)[:16] in infoblock.SIGNATURES.values()
        return False
