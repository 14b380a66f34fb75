"""Gives a caller another descriptor in the place of its own: that of an inode that has its pages.

A file that lost pages gives these to nobody again, or old mappings would come to life (decision 4): a mapping
that the real kernel allows has to be one of the new inode.

Theory of operation
-------------------
Nobody else may close the descriptor, and use its number for another file, between a look at it and the
exchange. The caller waits for us. The other threads of its process are stopped meanwhile, as a debugger
would stop them (`seizing`); one that sleeps in the kernel cannot get back to its own code. Where that
cannot be done, the descriptor stays, and the log says so.

What shares the table without being a thread of the process (clone(2) with CLONE_FILES alone) is not seen.
"""

import errno
import os
import threading

from fakedev.sandbox.exact import tracee
from fakedev.sandbox.exact.hand import Call, Hand
from fakedev.sandbox.exact.seizing import Spared, Threads

_NOT_AGAIN = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOFOLLOW


def exchange(hand: Hand, call: Call, path: str, *, worn: bool) -> None:
    """Do so with what is found at `path` of the tree, if that stands for the same device.

    `worn`: only because the inode of the descriptor has lost pages; else it has to be another file.
    """
    tid = call.waiting.tid
    old = tracee.descriptor(tid, call.fd)
    if old is None:
        return
    try:
        new = _opened(hand, tid, path, old.flags & ~_NOT_AGAIN)
    except OSError as error:
        _stays(hand, call, f"{path}: {error.strerror}")
        return
    try:
        if not _stands_for(hand, call, new):
            _stays(hand, call, f"another device stands at {path}")
            return
        states = hand.shared.states
        if states.any:
            states.keep(new, states.load(tid, call.fd))
        _replace(hand, call, new, old, worn=worn)
    finally:
        os.close(new)


def _opened(hand: Hand, tid: int, path: str, flags: int) -> int:
    with hand.shared.files.again(tid):
        return os.open(path.lstrip("/"), flags | os.O_CLOEXEC, dir_fd=hand.shared.root)


def _stands_for(hand: Hand, call: Call, new: int) -> bool:
    found = hand.shared.files.file(os.fstat(new).st_ino)
    return found is not None and found.node.stands_for(call.file.node)


def _stays(hand: Hand, call: Call, why: str) -> None:
    hand.shared.files.stays(call.waiting.tid, call.fd, why)


def _replace(hand: Hand, call: Call, new: int, old: tracee.Descriptor, *, worn: bool) -> None:
    process = tracee.process(call.waiting.tid)
    if _is_alone(process):
        _put(hand, call, new, old, worn=worn)
        return
    why: list[str] = []

    def stop_and_put() -> None:
        """On a thread that ends after it: then the kernel lets go of what could not be detached."""
        try:
            with Threads(process, but=call.waiting.tid) as others:
                others.seize()
                others.gather(tuple)
                _put(hand, call, new, old, worn=worn)
        except (Spared, RuntimeError) as error:
            why.append(str(error))
        except OSError as error:
            why.append(str(error.strerror))

    thread = threading.Thread(target=stop_and_put, name="fakedev-exchange", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        why.append(str(error))
    else:
        thread.join()
    if why and hand.listener.waits(call.waiting.id):  # else the caller has ended
        _stays(hand, call, f"its other threads cannot be stopped: {why[0]}")


def _is_alone(process: int) -> bool:
    try:
        return len(os.listdir(f"/proc/{process}/task")) == 1  # noqa: PTH208 - fast
    except OSError:
        return True  # it has ended


def _put(hand: Hand, call: Call, new: int, old: tracee.Descriptor, *, worn: bool) -> None:
    """If it is still the same: a descriptor of this file, open as before, whose inode lost pages if `worn`."""
    tid, cloexec = call.waiting.tid, bool(old.flags & os.O_CLOEXEC)
    if hand.statuses.ours(tid, call.fd) != call.file.ino:
        return
    if worn and hand.statuses.generation(tid, call.fd) not in call.file.worn:
        return
    now = tracee.descriptor(tid, call.fd)
    if now is None or now.flags != old.flags:
        return
    os.lseek(new, now.position, os.SEEK_SET)
    try:
        hand.listener.replace(call.waiting.id, new, call.fd, cloexec=cloexec)
    except OSError as error:
        if error.errno == errno.EBADF:
            _stays(hand, call, "its number is not below RLIMIT_NOFILE")
        elif hand.listener.waits(call.waiting.id):  # else the caller was killed
            raise
