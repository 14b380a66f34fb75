"""PhysicalMemory against a dict of bytes, driven by hypothesis."""

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fakedev.model.chunk import CHUNK_SIZE
from fakedev.model.contents import ZERO, AddressPattern, BytePattern, RandomContent, RawBytes
from fakedev.model.errors import MemoryLayoutError
from fakedev.model.memory import PhysicalMemory
from fakedev.model.ranges import PAGE_SIZE, Range
from fakedev.model.sources import anonymous

# A small world around the border between two chunks; the model has a byte or None per address.
BASE = CHUNK_SIZE - 5 * PAGE_SIZE
SIZE = 10 * PAGE_SIZE
UNDECODED = 0xEE

offsets = st.one_of(
    st.integers(0, SIZE - 1),
    st.builds(lambda p, d: max(0, p * PAGE_SIZE + d), st.integers(0, 9), st.integers(-2, 2)),
)
sizes = st.one_of(st.integers(1, 40), st.integers(1, 3 * PAGE_SIZE), st.just(PAGE_SIZE))
contents = st.sampled_from(
    [ZERO, AddressPattern(), BytePattern(b"abc"), RandomContent(5), RawBytes(b"r")]
)


class Memory(RuleBasedStateMachine):
    moments = Bundle("moments")

    def __init__(self):
        super().__init__()
        self.memory = PhysicalMemory(undecoded=UNDECODED)
        self.model = [None] * SIZE

    def span(self, offset, size):
        return offset, min(size, SIZE - offset)

    @rule(offset=offsets, size=sizes, content=contents)
    def add(self, offset, size, content):
        offset, size = self.span(offset, size)
        if any(byte is not None for byte in self.model[offset : offset + size]):
            self.refused(self.memory.add, BASE + offset, size, content)
        else:
            self.memory.add(BASE + offset, size, content)
            self.put(offset, content.generate(BASE + offset, size, origin=BASE + offset))

    @rule(offset=offsets, size=sizes)
    def remove(self, offset, size):
        offset, size = self.span(offset, size)
        self.memory.remove(BASE + offset, size)
        self.model[offset : offset + size] = [None] * size

    @rule(offset=offsets, size=sizes, content=contents, large=st.booleans())
    def fill(self, offset, size, content, large):
        offset, size = self.span(offset, size)
        if None in self.model[offset : offset + size]:
            self.refused(self.memory.fill, BASE + offset, size, content)
            return
        if large:  # carve as a large range is carved
            low = BASE + offset
            backing = anonymous(low, size, content)
            self.memory._overlay(low, size, [(low, low + size, backing)])
        else:
            self.memory.fill(BASE + offset, size, content)
        self.put(offset, content.generate(BASE + offset, size, origin=BASE + offset))

    @rule(offset=offsets, data=st.one_of(st.binary(max_size=30), sizes.map(lambda n: b"w" * n)))
    def write(self, offset, data):
        data = data[: SIZE - offset]
        self.memory.write(BASE + offset, data)
        for at, byte in enumerate(data, offset):
            if self.model[at] is not None:
                self.model[at] = byte

    @rule(offset=offsets, data=st.binary(min_size=1, max_size=30))
    def place(self, offset, data):
        data = data[: SIZE - offset]
        if None in self.model[offset : offset + len(data)]:
            self.refused(self.memory.place, BASE + offset, data)
        else:
            self.memory.place(BASE + offset, data)
            self.put(offset, data)

    @rule(target=moments)
    def snapshot(self):
        return self.memory.snapshot(), list(self.model)

    @rule(moment=moments)
    def restore(self, moment):
        snapshot, model = moment
        changed = self.memory.restore(snapshot)
        for at, (old, new) in enumerate(zip(self.model, model, strict=True)):
            if old != new:
                assert any(r.start <= BASE + at < r.end for r in changed)
        assert all(r.start % PAGE_SIZE == r.size % PAGE_SIZE == 0 for r in changed)
        self.model = list(model)

    @rule(moment=moments)
    def diff(self, moment):
        snapshot, model = moment
        differing = [at for at in range(SIZE) if self.model[at] != model[at]]
        expected = []
        for at in differing:
            if expected and expected[-1].end == BASE + at:
                expected[-1] = Range(expected[-1].start, expected[-1].size + 1)
            else:
                expected.append(Range(BASE + at, 1))
        assert self.memory.diff(snapshot) == expected
        assert snapshot.read(BASE, SIZE) == self.shown(model)

    @rule(moment=consumes(moments))
    def close(self, moment):
        moment[0].close()

    @rule(needle=st.sampled_from([b"w", b"cabca", b"w\0", b"\1", b"aw"]))
    def find(self, needle):
        shown, expected, at = self.shown(self.model), [], -1
        while (at := shown.find(needle, at + 1)) >= 0:
            if None not in self.model[at : at + len(needle)]:
                expected.append(BASE + at)
        assert list(self.memory.find(needle)) == expected

    @rule(offset=offsets, size=sizes)
    def read(self, offset, size):
        offset, size = self.span(offset, size)
        expected = self.shown(self.model[offset : offset + size])
        assert self.memory.read(BASE + offset, size) == expected

    @invariant()
    def same_bytes(self):
        assert self.memory.read(BASE, SIZE) == self.shown(self.model)

    @invariant()
    def sorted_and_disjoint(self):
        segments = self.memory.segments
        assert all(a.end <= b.start for a, b in pairwise(segments))

    def put(self, offset, data):
        self.model[offset : offset + len(data)] = data

    def shown(self, model):
        return bytes(UNDECODED if byte is None else byte for byte in model)

    def refused(self, call, *args):
        try:
            call(*args)
        except MemoryLayoutError:
            return
        raise AssertionError("not refused")


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=30)
