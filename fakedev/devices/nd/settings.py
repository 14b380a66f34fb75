"""What is written to the devices of the nd bus (`claim.c`, `pfn_devs.c`, `btt_devs.c`, `namespace_devs.c`)."""

import errno
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from fakedev.devices.kstrtox import unsigned
from fakedev.devices.nd.core import refusal
from fakedev.devices.nd.driving import Driving
from fakedev.devices.nd.infoblock import ALIGNMENTS
from fakedev.devices.nd.region import SEEDS, Namespace, Personality, Region
from fakedev.devices.nd.stacking import attach, detach_and_reset
from fakedev.model.ranges import PAGE_SIZE

SECTOR_SIZES = (512, 520, 528, 4096, 4104, 4160, 4224)
_SMALLEST = 16 << 20  # `nd_namespace_store`
_NAME_LENGTH = 64  # `NSLABEL_NAME_LEN`
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MODES = ("pmem", "ram", "none")
_TRUE, _FALSE = ("y", "1", "on"), ("n", "0", "of")


class Settings(Driving):
    """Stores of attributes. ControlError with the errno of the kernel."""

    # -- personalities ------------------------------------------------------------------------

    def set_uuid(self, which: Personality, text: str) -> None:
        """`nd_uuid_store`. EBUSY, EINVAL."""
        with self._setting(which):
            which.uuid = _uuid(text)

    def set_pfn_mode(self, which: Personality, text: str) -> None:
        """`mode_store`. EBUSY, EINVAL."""
        with self._setting(which):
            which.mode = _one_of(text.strip(), _MODES)

    def set_align(self, which: Personality, text: str) -> None:
        """`align_store`. EBUSY, EINVAL."""
        with self._setting(which):
            which.align = _size(text, ALIGNMENTS)

    def set_sector_size(self, which: Personality, text: str) -> None:
        """`sector_size_store` of a btt. EBUSY, EINVAL."""
        with self._setting(which):
            which.sector_size = _size(text, SECTOR_SIZES)

    def set_namespace(self, which: Personality, text: str) -> None:
        """`nd_namespace_store`: claim a namespace; with an empty line let it go."""
        with self._setting(which):
            name = text.strip()
            if name and not name.startswith("namespace"):
                raise refusal(f"{name!r} is no namespace", errno.EINVAL)
            if not name:
                detach_and_reset(which)
            elif which.namespace is not None:
                raise refusal(f"{which.name} has {which.namespace.name} already", errno.EBUSY)
            else:
                attach(which, self._claimable(which, name))

    @staticmethod
    def _claimable(which: Personality, name: str) -> Namespace:
        found = next((n for n in which.region.namespaces if n.name == name), None)
        if found is None:
            raise refusal(f"there is no {name} below {which.region.name}", errno.ENODEV)
        if found.label.holder_class not in {"", which.kind}:
            raise refusal(f"{name} is for a {found.label.holder_class}", errno.EBUSY)
        if found.span.size < _SMALLEST:
            raise refusal(f"{name} is too small to host {which.name}", errno.ENXIO)
        if found.claim is not None:
            raise refusal(f"{name} is claimed by {found.claim.name}", errno.EBUSY)
        return found

    @contextmanager
    def _setting(self, which: Personality) -> Iterator[None]:
        """Held while a setting of an idle personality changes. EBUSY for one that has a driver."""
        with self.change():
            if which.driver:
                raise refusal(f"{which.name} is active", errno.EBUSY)
            self._touched.add(which.region.name)
            yield

    # -- namespaces ---------------------------------------------------------------------------

    def set_force_raw(self, namespace: Namespace, text: str) -> None:
        """`force_raw_store`. EINVAL."""
        with self.change():
            namespace.force_raw = boolean(text)
            self._touched.add(namespace.region.name)

    def set_holder_class(self, namespace: Namespace, text: str) -> None:
        """`holder_class_store`. EBUSY, EINVAL."""
        with self._labelling(namespace):
            namespace.label.holder_class = _one_of(text.removesuffix("\n"), ("", *SEEDS))

    def set_label_uuid(self, namespace: Namespace, text: str) -> None:
        """`uuid_store` of a namespace. EBUSY, EINVAL."""
        with self._labelling(namespace):
            namespace.label.uuid = _uuid(text)

    def set_alt_name(self, namespace: Namespace, text: str) -> None:
        """`alt_name_store`. EBUSY, EINVAL for what does not fit into a label."""
        with self._labelling(namespace):
            if len(text.strip()) >= _NAME_LENGTH:
                raise refusal("a name has 63 characters at most", errno.EINVAL)
            namespace.label.alt_name = text.strip()

    def set_label_sector_size(self, namespace: Namespace, text: str) -> None:
        """`sector_size_store` of a namespace. EBUSY, EINVAL."""
        with self._labelling(namespace):
            namespace.label.sector_size = _size(text, namespace.plan.sector_sizes)

    def set_size(self, namespace: Namespace, text: str) -> None:
        """`size_store`: 0 deletes it. EBUSY, EINVAL, ENXIO without uuid, ENOSPC.

        A namespace grows in the space that the profile gave it, not in that of another.
        """
        value, label = unsigned(text), namespace.label
        if value is None:
            raise refusal(f"{text.strip()!r} is no size", errno.EINVAL)
        with self._labelling(namespace):
            if label.uuid is None:
                raise refusal(f"{namespace.name} has no uuid", errno.ENXIO)
            if value % namespace.region.align:
                raise refusal(
                    f"{value:#x} is not aligned to {namespace.region.align:#x}", errno.EINVAL
                )
            if value > namespace.plan.size:
                raise refusal(
                    f"{namespace.name} has {namespace.plan.size:#x} at most", errno.ENOSPC
                )
            label.size = value
            if not value:
                label.uuid, label.alt_name, label.holder_class = None, "", ""

    @contextmanager
    def _labelling(self, namespace: Namespace) -> Iterator[None]:
        """Held while the label of an idle namespace changes. EBUSY for one that is in use."""
        with self.change():
            if namespace.driver or namespace.claim:
                raise refusal(f"{namespace.name} is in use", errno.EBUSY)
            self._touched.add(namespace.region.name)
            yield

    # -- regions ------------------------------------------------------------------------------

    def set_read_only(self, region: Region, text: str) -> None:
        """`read_only_store`. EINVAL."""
        with self.change():
            region.read_only = boolean(text)
            self._touched.add(region.name)

    def set_region_align(self, region: Region, text: str) -> None:
        """`align_store` of a region. EINVAL."""
        value = unsigned(text)
        share, rest = divmod(value or 0, max(len(region.plan.mappings), 1))
        if (
            rest
            or share < PAGE_SIZE
            or share & share - 1
            or value is None
            or value > region.plan.size
        ):
            raise refusal(f"{text.strip()!r} is no alignment for {region.name}", errno.EINVAL)
        with self.change():
            region.align = value
            self._touched.add(region.name)

    @staticmethod
    def flush(text: str) -> None:
        """`deep_flush_store`: stores are where they belong anyway. EINVAL for anything but true."""
        if not boolean(text):
            raise refusal("deep_flush can only be set", errno.EINVAL)


def boolean(text: str) -> bool:
    """`kstrtobool`. EINVAL."""
    head = text[:2].lower()
    if head[:1] in _TRUE or head in _TRUE:
        return True
    if head[:1] in _FALSE or head in _FALSE:
        return False
    raise refusal(f"{text.strip()!r} is neither true nor false", errno.EINVAL)


def _uuid(text: str) -> uuid.UUID:
    """`uuid_parse`: what stands behind it does not count. EINVAL."""
    if _UUID.match(text) is None:
        raise refusal(f"{text.strip()!r} is no uuid", errno.EINVAL)
    return uuid.UUID(text[:36])


def _one_of(word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        raise refusal(f"{word!r} is none of {', '.join(filter(None, known))}", errno.EINVAL)
    return word


def _size(text: str, supported: tuple[int, ...]) -> int:
    value = unsigned(text)
    if value not in supported or value is None:
        raise refusal(f"{text.strip()!r} is none of {', '.join(map(str, supported))}", errno.EINVAL)
    return value
