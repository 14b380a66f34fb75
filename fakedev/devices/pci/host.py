"""What a bus asks of the machine it is in, and what answers before there is one."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from fakedev.model.effects import Effect
from fakedev.model.errors import ControlError
from fakedev.model.flags import IORESOURCE_EXCLUSIVE
from fakedev.model.ranges import Range
from fakedev.model.resource import Resource
from fakedev.model.resources import ResourceTree
from fakedev.model.world import Settle

T = TypeVar("T")


class Host(Protocol):
    """The part of `Machine` that PCI uses; its methods are described there."""

    lock: Any
    poison: Any

    def verb(self) -> AbstractContextManager[Any]: ...
    def claim(self, span: Range, name: str, *, exclusive: bool = False) -> Resource: ...
    def release(self, span: Range) -> None: ...
    def claim_port(self, span: Range, name: str) -> Resource: ...
    def release_port(self, span: Range) -> None: ...
    def insert_resource(self, parent: Resource, new: Resource) -> None: ...
    def drop_resource(self, node: Resource) -> None: ...
    def revoke(self, span: Range, cause: str, *, even_cows: bool = True) -> None: ...
    def file_removed(self, span: Range) -> None: ...
    def publish(self, *effects: Effect) -> None: ...
    def record(self, kind: str, message: str, span: Range | None = None) -> Any: ...

    @property
    def claims(self) -> tuple[Resource, ...]:
        """Claims of memory that were made through `claim`."""

    @property
    def settle(self) -> Settle:
        """Do an action while no file caches a page of the ranges."""


class Boot:
    """The machine before it runs: nodes go into the trees, nobody watches, nothing is cached."""

    def __init__(self, iomem: ResourceTree, ioports: ResourceTree) -> None:
        self._iomem = iomem
        self._ioports = ioports
        self.lock: Any = nullcontext()
        self.poison: Any = None
        self.claims: tuple[Resource, ...] = ()

    def verb(self) -> AbstractContextManager[Any]:
        """Nobody else is there."""
        return nullcontext()

    def claim(self, span: Range, name: str, *, exclusive: bool = False) -> Resource:
        """`request_mem_region`. Raises ResourceConflictError."""
        flags = IORESOURCE_EXCLUSIVE if exclusive else 0
        return self._iomem.request_region(span.start, span.size, name, flags)

    def release(self, span: Range) -> None:
        """`release_mem_region`. Raises ControlError."""
        self._release(self._iomem, span)

    def claim_port(self, span: Range, name: str) -> Resource:
        """`request_region`. Raises ResourceConflictError."""
        return self._ioports.request_region(span.start, span.size, name)

    def release_port(self, span: Range) -> None:
        """`release_region`. Raises ControlError."""
        self._release(self._ioports, span)

    @staticmethod
    def _release(tree: ResourceTree, span: Range) -> None:
        if not tree.release_region(span.start, span.size):
            raise ControlError(f"Trying to free nonexistent resource <{span}>")

    def insert_resource(self, parent: Resource, new: Resource) -> None:
        """`insert_resource`: what the profile lists inside goes below. Raises ResourceConflictError."""
        self._tree_of(parent).insert_resource(new, parent)

    def drop_resource(self, node: Resource) -> None:
        """`release_resource`."""
        self._tree_of(node).release_resource(node)

    def _tree_of(self, node: Resource) -> ResourceTree:
        while node.parent is not None:
            node = node.parent
        return self._ioports if node is self._ioports.root else self._iomem

    def revoke(self, span: Range, cause: str, *, even_cows: bool = True) -> None:
        """No mappings yet."""

    def file_removed(self, span: Range) -> None:
        """No mappings yet."""

    def publish(self, *effects: Effect) -> None:
        """Nobody to tell."""

    def record(self, kind: str, message: str, span: Range | None = None) -> None:
        """The log begins later."""

    def settle(self, span: Range | Sequence[Range], action: Callable[[], Any]) -> Any:
        """Nothing is cached."""
        return action()


def settle_all(host: Host, spans: Iterable[Range], action: Callable[[], T]) -> T:
    """Do `action` under the machine's lock while no file caches a page of any of the ranges."""

    def locked() -> T:
        with host.lock:
            return action()

    merged = _merged(spans)
    if not merged:
        return locked()
    result: T = host.settle(merged, locked)  # all at once: an action that settles must not settle
    return result


def _merged(spans: Iterable[Range]) -> list[Range]:
    """The same bytes as few ranges: a settle costs a round through the file system."""
    merged: list[Range] = []
    for span in sorted(set(spans)):
        if merged and span.start <= merged[-1].end:
            start = merged[-1].start
            merged[-1] = Range(start, max(merged[-1].end, span.end) - start)
        elif span.size:
            merged.append(span)
    return merged
