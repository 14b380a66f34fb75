"""What a read(2) or write(2) that is refused half way does before: `do_loop_readv_writev` and `read_mem`.

FUSE makes one request of a call, and one answer to it is bytes or an errno. A driver without `read_iter`
is called for one buffer after the other, and goes page by page in each. So a request that begins in an
allowed page is looked at again when it was refused: what `read_mem` would have copied is put into the
buffer, and buffers that were done count.

Without knowing the buffers (a thread that may not be looked at, io_uring) it stays refused as a whole.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from fakedev.fuse.apart import apart
from fakedev.fuse.callbuffers import READS, WRITES, Segment, put, segments
from fakedev.fuse.deferred import Deferred
from fakedev.views.node import Buffers, Partly, Refused

T = TypeVar("T")
Read = Callable[[int, int], Buffers]
Write = Callable[[int, memoryview], int]
Again = Callable[[Partly], Deferred]


def read_in_pieces(tid: int, offset: int, size: int, error: Partly, read: Read) -> Deferred:
    """The answer to a READ that was refused: the buffers that can be filled, or the errno."""

    def job() -> Buffers:
        data: Buffers = []
        at = offset
        for segment in segments(READS, tid, offset, size):
            try:
                data += _now(read, at, segment.size)
            except Refused as refused:
                if isinstance(refused, Partly):
                    _fill(tid, segment, at, refused.before, read)
                return _unless_nothing(data, refused)
            at += segment.size
        return _unless_nothing(data, error)

    return _apart(job, tid, error)


def write_in_pieces(tid: int, offset: int, error: Partly, write: Write) -> Deferred:
    """The answer to a WRITE that was refused: the bytes of the buffers that were taken, or the errno."""
    data = memoryview(bytes(error.data))

    def job() -> int:
        found = segments(WRITES, tid, offset, len(data))
        if error.before:  # they are written
            return _unless_nothing(_complete(found, error.before), error)
        done = 0
        for segment in found:
            try:
                taken = _now(write, offset + done, data[done : done + segment.size])
            except Refused as refused:
                return _unless_nothing(done, refused)
            done += taken
            if taken < segment.size:
                break
        return _unless_nothing(done, error)

    return _apart(job, tid, error)


def after(late: Deferred, again: Again) -> Deferred:
    """The same answer; where that is Partly, what `again` answers."""
    final = late

    def look() -> None:
        nonlocal final
        final = _retried(late, again)
        final.when_done(answer.run)

    def outcome() -> Any:
        return final.outcome()

    answer = Deferred(outcome)
    late.when_done(look)
    return answer


def _retried(done: Deferred, again: Again) -> Deferred:
    try:
        done.outcome()
    except Partly as error:
        with suppress(Exception):  # without memory or a thread it stays refused
            return again(error)
    except Exception:  # noqa: BLE001 - it is the answer
        return done
    return done


def _apart(job: Callable[[], Any], tid: int, error: Partly) -> Deferred:
    try:
        return apart(job, tid)
    except RuntimeError:  # too many threads
        raise error from None


def _now(access: Callable[..., T], *arguments: Any) -> T:
    """What an access gives, now or after a recall."""
    try:
        return access(*arguments)
    except Deferred as late:
        outcome: T = late.wait()
        return outcome


def _fill(tid: int, segment: Segment, at: int, before: int, read: Read) -> None:
    try:
        data = b"".join(_now(read, at, before))
    except Refused:
        return  # claimed meanwhile
    put(tid, segment.address, data)


def _complete(found: list[Segment], before: int) -> int:
    """The bytes of the buffers that end within the first `before` bytes."""
    done = 0
    for segment in found:
        if done + segment.size > before:
            break
        done += segment.size
    return done


def _unless_nothing(done: T, error: Refused) -> T:
    if not done:
        raise error
    return done
