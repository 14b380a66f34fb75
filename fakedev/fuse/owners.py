"""Who may cache which page of physical memory. No thread, no lock: `coherence` guards it."""

from collections.abc import Callable, Iterator

from fakedev.fuse.mappers import Mapped
from fakedev.fuse.rangeset import RangeSet
from fakedev.model.ranges import PAGE_SHIFT, Range


def _no(_: Range) -> bool:
    return False


def _yes() -> bool:
    return True


class Alias:
    """One inode that shows physical memory.

    `invalidate` drops cached pages of a physical range, `expire` what its name resolves to;
    `revocable` tells whether a claim takes its pages, `mappable` whether they may be mapped anew.
    `file` is how /proc/PID/maps shows it, `openers` who has it open, by descriptor; `shared` tells
    whether it shares the mapping of `/dev/mem`.
    """

    __slots__ = (
        "expire", "expired", "file", "filled", "invalidate", "lost", "mappable", "openers", "opens",
        "revocable", "shared",
    )  # fmt: skip

    def __init__(
        self,
        *,
        invalidate: Callable[[Range], None],
        expire: Callable[[], None],
        revocable: Callable[[], bool] = _yes,
        mappable: Callable[[Range], bool] = _no,
    ) -> None:
        self.invalidate = invalidate
        self.expire = expire
        self.revocable = revocable
        self.mappable = mappable
        self.file: Mapped | None = None
        self.openers: dict[int, tuple[int, str]] = {}
        self.expired = False
        self.filled = False
        self.lost = RangeSet()
        self.opens = 0
        self.shared = True

    def who(self) -> list[tuple[int, str]]:
        """Pid and name of each process that has it open."""
        return list(self.openers.values())


class Owners:
    """The aliases that cache pages, and the owner of each page.

    While there is one alias nothing is tracked. A page that nobody asked for through a later one
    belongs to the first, the default.
    """

    __slots__ = ("_default", "_owner", "aliases")

    def __init__(self) -> None:
        self.aliases: list[Alias] = []
        self._default: Alias | None = None
        self._owner: dict[int, Alias | None] = {}

    def register(self, alias: Alias) -> None:
        """An alias caches its first page."""
        alias.filled = True
        if not self.aliases:
            self._default = alias
        self.aliases.append(alias)

    def drop(self, alias: Alias) -> None:
        """An alias has no descriptor and no mapping left."""
        alias.lost = RangeSet()
        if not alias.filled:
            return
        alias.filled = False
        self.aliases.remove(alias)
        if self._default is alias:
            self._default = None
        if len(self.aliases) > 1:
            self._owner = {p: None if o is alias else o for p, o in self._owner.items()}
        else:
            self._owner.clear()
            self._default = self.aliases[0] if self.aliases else None

    def own(self, span: Range, alias: Alias) -> None:
        """The pages of `span` belong to `alias` from now on."""
        for page in _pages(span):
            self._owner[page] = alias

    def held(self, span: Range, but: Alias | None) -> list[tuple[Alias, Range]]:
        """Who but `but` may cache pages of `span`, and which."""
        held: list[tuple[Alias, Range]] = []
        at = span.start >> PAGE_SHIFT
        end = (span.end - 1 >> PAGE_SHIFT) + 1
        for page in self._tracked(span):
            if at < page:
                held += _run(self._default, at, page, but)
            held += _run(self._owner[page], page, page + 1, but)
            at = page + 1
        if at < end:
            held += _run(self._default, at, end, but)
        return _joined(held)

    def _tracked(self, span: Range) -> Iterator[int]:
        """Pages of `span` with an entry of their own, in order."""
        pages = _pages(span)
        if len(pages) <= len(self._owner):
            return (page for page in pages if page in self._owner)
        return iter(sorted(page for page in self._owner if page in pages))


def _joined(held: list[tuple[Alias, Range]]) -> list[tuple[Alias, Range]]:
    """Neighbours of one alias as one: each is a message to the kernel."""
    joined: list[tuple[Alias, Range]] = []
    for alias, part in held:
        last, span = joined[-1] if joined else (None, part)
        if last is alias and span.end == part.start:
            joined[-1] = alias, Range(span.start, part.end - span.start)
        else:
            joined.append((alias, part))
    return joined


def _run(alias: Alias | None, first: int, end: int, but: Alias | None) -> list[tuple[Alias, Range]]:
    if alias is None or alias is but:
        return []
    return [(alias, Range(first << PAGE_SHIFT, end - first << PAGE_SHIFT))]


def _pages(span: Range) -> range:
    return range(span.start >> PAGE_SHIFT, (span.end - 1 >> PAGE_SHIFT) + 1)
