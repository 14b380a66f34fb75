"""The page-owner protocol against a page cache that behaves as the kernel's does.

The simulated kernel locks a page while a READ of it is in flight; an invalidation waits for that
lock and writes dirty pages back first. Those are the two waits that a wrong protocol deadlocks on.
"""

import contextlib
import errno
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from machines import BAR, small_machine
from support import wait_for

from fakedev.fuse.coherence import Coherence
from fakedev.fuse.deferred import Deferred
from fakedev.fuse.owners import Alias
from fakedev.fuse.service import service_of
from fakedev.model.machine import Machine
from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.views.devmem import DevMem, DevMemHandle
from fakedev.views.node import Refused

WORD = 8


class PageCache:
    """The cached pages of one inode."""

    def __init__(self, machine: Machine, coherence: Coherence) -> None:
        self.machine = machine
        self.coherence = coherence
        self.node = DevMem(machine)
        self.handle = DevMemHandle(self.node, machine.now)
        self.alias = Alias(invalidate=self.invalidate, expire=self.expire)
        self.expired = 0
        self._pages: dict[int, bytearray] = {}
        self._dirty: set[int] = set()
        self._folio: dict[int, threading.Lock] = {}
        self._table = threading.Lock()
        coherence.opened(self.alias)

    def _lock(self, page: int) -> threading.Lock:
        with self._table:
            return self._folio.setdefault(page, threading.Lock())

    def invalidate(self, span: Range) -> None:
        for page in range(span.start // PAGE_SIZE, (span.end - 1) // PAGE_SIZE + 1):
            with self._lock(page):
                data = self._pages.pop(page, None)
                if page in self._dirty and data is not None:
                    self._dirty.discard(page)
                    self.node.stored(page * PAGE_SIZE, memoryview(data))

    def expire(self) -> None:
        self.expired += 1

    def _page(self, page: int) -> bytearray:
        """With the folio locked: the page, filled by the server where it is not there."""
        if page not in self._pages:
            self._pages[page] = bytearray(self._answer(page))
        return self._pages[page]

    def _answer(self, page: int) -> bytes:
        try:
            found = self.coherence.fault(self.alias, self.handle, page * PAGE_SIZE, PAGE_SIZE)
        except Deferred as deferred:
            found = deferred.wait()
        return b"".join(found)

    def load(self, address: int) -> int:
        with self._lock(address // PAGE_SIZE):
            page = self._page(address // PAGE_SIZE)
            return int.from_bytes(page[address % PAGE_SIZE :][:WORD], "little")

    def store(self, address: int, value: int) -> None:
        number = address // PAGE_SIZE
        with self._lock(number):
            page = self._page(number)
            at = address % PAGE_SIZE
            page[at : at + WORD] = value.to_bytes(WORD, "little")
            self._dirty.add(number)

    def evict(self, address: int) -> None:
        """Memory pressure: the kernel drops a page on its own."""
        self.invalidate(Range(address & -PAGE_SIZE, PAGE_SIZE))

    def write(self, address: int, value: int) -> None:
        """pwrite: write back and drop the inode's own page, then WRITE."""
        self.evict(address)
        self._finish(
            lambda: self.coherence.write(
                self.alias, self.handle, address, memoryview(value.to_bytes(WORD, "little"))
            )
        )

    def read(self, address: int) -> int:
        """pread: write back the inode's own page, then READ."""
        with self._lock(address // PAGE_SIZE):
            page = self._pages.get(address // PAGE_SIZE)
            if page is not None and address // PAGE_SIZE in self._dirty:
                self._dirty.discard(address // PAGE_SIZE)
                self.node.stored(address & -PAGE_SIZE, memoryview(bytes(page)))
        found = self._finish(lambda: self.coherence.read(self.alias, self.handle, address, WORD))
        return int.from_bytes(b"".join(found), "little")  # type: ignore[arg-type]

    def _finish(self, call: object) -> object:
        assert callable(call)
        try:
            return call()
        except Deferred as deferred:
            return deferred.wait()


@pytest.fixture
def world() -> Iterator[tuple[Machine, Coherence]]:
    machine = small_machine()
    coherence = Coherence(machine)
    yield machine, coherence
    coherence.close()


World = tuple[Machine, Coherence]


def test_one_alias_needs_no_recall(world: World) -> None:
    machine, coherence = world
    cache = PageCache(machine, coherence)
    cache.store(BAR, 7)
    assert cache.load(BAR) == 7
    assert machine.peek(Range(BAR, 1)) == b"\x07", "peek sees the store of a mapping"
    machine.poke(BAR, b"\x09")
    assert cache.load(BAR) == 9, "a mapping sees what was poked"


def test_a_store_through_one_alias_is_seen_through_the_other(world: World) -> None:
    machine, coherence = world
    first, second = PageCache(machine, coherence), PageCache(machine, coherence)
    for value in range(1, 50):
        one, other = (first, second) if value % 2 else (second, first)
        one.store(BAR, value)
        assert other.load(BAR) == value
        assert one.read(BAR) == value
        other.write(BAR, value + 1000)
        assert one.load(BAR) == value + 1000


def test_the_kernel_may_evict_a_page_that_its_alias_still_owns(world: World) -> None:
    machine, coherence = world
    first, second = PageCache(machine, coherence), PageCache(machine, coherence)
    first.store(BAR, 1)
    second.store(BAR, 2)
    second.evict(BAR)
    assert first.load(BAR) == 2
    second.evict(BAR)
    assert second.load(BAR) == 2


def test_a_revoke_saves_stores_and_the_page_never_heals(world: World) -> None:
    machine, coherence = world
    cache = PageCache(machine, coherence)
    cache.store(BAR, 5)
    machine.claim(Range(BAR, PAGE_SIZE), "drv")
    assert machine.peek(Range(BAR, 1)) == b"\x05"
    with pytest.raises(Refused):
        cache.load(BAR)
    assert cache.load(BAR + PAGE_SIZE) == 0, "the neighbour lives"
    assert cache.expired == 0
    machine.release(Range(BAR, PAGE_SIZE))
    assert cache.expired == 1, "later opens get another inode"
    with pytest.raises(Refused) as caught:
        cache.load(BAR)
    assert caught.value.errno == errno.EIO
    assert PageCache(machine, coherence).load(BAR) == 5


def test_dropping_a_name_does_not_wait_for_the_notifier(world: World) -> None:
    """Who lists the directory keeps its lock, and may put the listing into a page of ours."""
    machine, coherence = world
    cache = PageCache(machine, coherence)
    cache.store(BAR, 5)
    faults: list[bool] = []

    def expire() -> None:
        done = threading.Event()
        coherence.submit(done.set)
        faults.append(done.wait(5))

    cache.alias.expire = expire
    machine.claim(Range(BAR, PAGE_SIZE), "driver")
    machine.release(Range(BAR, PAGE_SIZE))
    assert faults == [True]


def test_a_page_that_was_refused_once_is_dead_for_its_mapping(world: World) -> None:
    machine, coherence = world
    machine.claim(Range(BAR, PAGE_SIZE), "drv")
    cache = PageCache(machine, coherence)
    with pytest.raises(Refused):
        cache.load(BAR)
    machine.release(Range(BAR, PAGE_SIZE))
    with pytest.raises(Refused):
        cache.load(BAR)


def test_readahead_never_waits_for_a_recall(world: World) -> None:
    machine, coherence = world
    first, second = PageCache(machine, coherence), PageCache(machine, coherence)
    first.store(BAR, 1)
    with pytest.raises(Refused) as caught:
        coherence.fault(second.alias, second.handle, BAR, 2 * PAGE_SIZE)
    assert caught.value.errno == errno.EIO


def test_closing_the_second_alias_ends_the_tracking(world: World) -> None:
    machine, coherence = world
    first, second = PageCache(machine, coherence), PageCache(machine, coherence)
    first.store(BAR, 1)
    second.store(BAR, 2)
    second.evict(BAR)
    coherence.released(second.alias)
    wait_for(lambda: coherence._owners._owner == {}, "the alias is forgotten")
    assert first.load(BAR) == 2


def test_memory_as_a_whole_can_be_settled_while_pages_are_mapped(world: World) -> None:
    machine, coherence = world
    caches = [PageCache(machine, coherence) for _ in range(2)]
    caches[0].invalidate = _only_known(caches[0])  # type: ignore[method-assign]
    caches[1].invalidate = _only_known(caches[1])  # type: ignore[method-assign]
    for cache in caches:
        cache.alias.invalidate = cache.invalidate
    caches[0].store(BAR, 3)
    machine.reset()
    assert caches[1].load(BAR) == 0


def _only_known(cache: PageCache) -> object:
    """Walk the cached pages instead of the range: the range is the whole machine."""

    def invalidate(span: Range) -> None:
        for page in list(cache._pages):
            if span.start <= page * PAGE_SIZE < span.end:
                PageCache.invalidate(cache, Range(page * PAGE_SIZE, PAGE_SIZE))

    return invalidate


@pytest.mark.parametrize("seed", range(4))
def test_agents_take_turns_through_any_path_without_a_stale_word(world: World, seed: int) -> None:
    """Threads add to two shared words in turn, each through a path of its own choice."""
    machine, coherence = world
    caches = [PageCache(machine, coherence) for _ in range(3)]
    turn = threading.Lock()
    words = [BAR + 16, BAR + PAGE_SIZE + 16]
    expected = dict.fromkeys(words, 0)

    def agent(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        for _ in range(60):
            cache, word = chance.choice(caches), chance.choice(words)
            with turn:
                how = chance.choice([cache.load, cache.read])
                assert how(word) == expected[word]
                expected[word] += 1
                chance.choice([cache.store, cache.write])(word, expected[word])
            if chance.random() < 0.2:
                cache.evict(word)

    def disturb(stop: threading.Event) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            cache = chance.choice(caches)
            with contextlib.suppress(Refused):
                cache.load(chance.choice(words))
            machine.peek(Range(chance.choice(words), 8))

    stop = threading.Event()
    with ThreadPoolExecutor(6) as pool:
        noise = [pool.submit(disturb, stop) for _ in range(2)]
        agents = [pool.submit(agent, number) for number in range(4)]
        try:
            for future in agents:
                future.result(timeout=40)
        finally:
            stop.set()
        for future in noise:
            future.result(timeout=10)


def test_claims_and_releases_under_faulting_threads_do_not_hang(world: World) -> None:
    machine, coherence = world
    stop = threading.Event()

    def toucher() -> None:
        while not stop.is_set():
            cache = PageCache(machine, coherence)
            for _ in range(20):
                with contextlib.suppress(Refused):
                    cache.store(BAR, 1)
                    cache.load(BAR + PAGE_SIZE)
            cache.evict(BAR)
            cache.evict(BAR + PAGE_SIZE)
            coherence.released(cache.alias)

    with ThreadPoolExecutor(3) as pool:
        touchers = [pool.submit(toucher) for _ in range(3)]
        for number in range(150):
            machine.claim(Range(BAR, PAGE_SIZE), f"drv{number}")
            assert not machine.read(BAR, 1)[0].allowed
            machine.release(Range(BAR, PAGE_SIZE))
        stop.set()
        for future in touchers:
            future.result(timeout=20)


def test_the_notifier_thread_runs_only_while_there_is_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fakedev.fuse.jobs.IDLE", 0.01)
    machine, coherence = world
    assert coherence._notifier._thread is None
    cache = PageCache(machine, coherence)
    cache.store(BAR, 1)
    for _ in range(3):
        assert machine.peek(Range(BAR, 1)) == b"\x01"
        wait_for(lambda: coherence._notifier._thread is None, "the idle thread ends")


def test_all_mounts_of_a_machine_share_one_service() -> None:
    machine = small_machine()
    service = service_of(machine)
    assert service_of(machine) is service
    service.close()
    assert service_of(machine) is not service
    service_of(machine).close()
