"""seccomp user notification: install a filter, receive calls, answer them (seccomp_unotify(2)).

Raw system calls: libseccomp compares arguments as 64 bits, and has no way to put a descriptor into the caller.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from typing import Any, NamedTuple

from fakedev.sandbox import syscalls
from fakedev.sandbox.exact import bpf
from fakedev.sandbox.exact.numbers import HOSTS, SECCOMP
from fakedev.sandbox.exact.rules import ALL_ONES, identity_rules, memory_rules, rules

_SET_MODE_FILTER = 1
_GET_NOTIF_SIZES = 3
_SPEC_ALLOW = 1 << 2  # before 5.16 a filter without it slows a tool down (SSBD)
_NEW_LISTENER = 1 << 3
_GET_NO_NEW_PRIVS = 39  # PR_GET_NO_NEW_PRIVS
_WAIT_KILLABLE_RECV = 1 << 5  # 5.19: only a fatal signal interrupts a call that was received
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_SETFD = 1  # SECCOMP_ADDFD_FLAG_SETFD
_SYNC_WAKE_UP = 1  # 6.6: the caller runs on this CPU next


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("!") << 8 | number


_NOTIFICATION = struct.Struct("=QI4xiI8x6Q")
_RESPONSE = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")
_ID = struct.Struct("=Q")
_RECV, _SEND = _ioc(3, 0, _NOTIFICATION.size), _ioc(3, 1, _RESPONSE.size)
_ID_VALID, _ADD, _FLAGS = _ioc(1, 2, 8), _ioc(1, 3, _ADDFD.size), _ioc(1, 4, 8)
_EMPTY = bytearray(_NOTIFICATION.size)

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


REGISTERS = 4  #: where in a notification they begin


class Notification(NamedTuple):
    """One call that waits: `tid` is the thread; its registers are the rest."""

    id: int
    tid: int
    number: int
    audit: int
    register_0: int
    register_1: int
    register_2: int
    register_3: int
    register_4: int
    register_5: int

    @property
    def arguments(self) -> tuple[int, ...]:
        """The registers."""
        return self[REGISTERS:]

    def narrow(self) -> "Notification":
        """Of a 32-bit call: what is above is not looked at."""
        return Notification._make(
            (*self[:REGISTERS], *(word & ALL_ONES for word in self.arguments))
        )


def filter_program(*, users: bool = False) -> bytes | None:
    """The filter for this host; None on an architecture without a table.

    `users`: also for the calls about users, groups and capabilities.
    """
    tables = HOSTS.get(platform.machine())
    if not tables:
        return None
    filters = []
    for arch in tables:
        calls, which = arch.calls | arch.memory, rules(arch.name) | memory_rules(arch)
        if users:
            calls, which = calls | arch.identity, which | identity_rules(arch)
        filters.append((arch._replace(calls=calls), which))
    return bpf.program(filters)


def is_known() -> bool:
    """Whether the kernel has user notification; asks without any effect."""
    sizes = ctypes.create_string_buffer(6)
    words = [ctypes.c_long(word) for word in (SECCOMP[platform.machine()], _GET_NOTIF_SIZES, 0)]
    return bool(_libc.syscall(*words, ctypes.c_void_p(ctypes.addressof(sizes))) == 0)


def install(program: bytes) -> int:
    """Filter the calls of this process and its children from now on; returns the listener.

    Raises OSError: EBUSY where a filter with a listener is there already (`has_duplicate_listener`),
    EINVAL before Linux 5.0, EPERM or ENOSYS where the host's own filter forbids it. Sets no_new_privs
    where there is no CAP_SYS_ADMIN any more (EACCES).
    """
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // 8
    packed = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(code)))
    number = SECCOMP[platform.machine()]
    needed = _NEW_LISTENER | _SPEC_ALLOW
    tries = [needed, needed | _WAIT_KILLABLE_RECV]
    while tries:
        words = [ctypes.c_long(word) for word in (number, _SET_MODE_FILTER, tries[-1])]
        found = int(_libc.syscall(*words, ctypes.c_void_p(ctypes.addressof(packed))))
        if found >= 0:
            return found
        if ctypes.get_errno() == errno.EINVAL:
            tries.pop()
        elif ctypes.get_errno() != errno.EACCES or syscalls.prctl(_GET_NO_NEW_PRIVS):
            break
        else:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    failed = ctypes.get_errno()
    raise OSError(failed, f"seccomp(SET_MODE_FILTER, NEW_LISTENER): {os.strerror(failed)}")


class Listener:
    """The answering end of a filter. One thread at a time; owns its descriptor.

    What ioctl(2) is given stands in buffers that stay: fcntl.ioctl takes longer over `bytes`.
    """

    __slots__ = ("_buffer", "_id", "_response", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray(_NOTIFICATION.size)
        self._response = bytearray(_RESPONSE.size)
        self._id = bytearray(_ID.size)
        try:
            fcntl.ioctl(fd, _FLAGS, _SYNC_WAKE_UP)
        except OSError:
            return  # before 6.6

    def receive(self) -> Notification | None:
        """The next call; None where its caller died, or a signal took it back."""
        self._buffer[:] = _EMPTY
        try:
            fcntl.ioctl(self.fd, _RECV, self._buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        return Notification._make(_NOTIFICATION.unpack(self._buffer))

    def resume(self, one: int) -> None:
        """Let the kernel do the call as if nobody had looked."""
        self._send(one, 0, 0, _CONTINUE)

    def answer(self, one: int, value: int) -> None:
        """End the call with a result, or with an errno where `value` is -1 to -4095."""
        failed = -4095 <= value < 0
        self._send(one, 0 if failed else value, value if failed else 0, 0)

    def _send(self, one: int, value: int, failed: int, flags: int) -> None:
        _RESPONSE.pack_into(self._response, 0, one, value, failed, flags)
        try:
            fcntl.ioctl(self.fd, _SEND, self._response)
        except OSError as error:
            # The caller died meanwhile; or it has its answer, and a fault of ours came after it.
            if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
                raise

    def waits(self, one: int) -> bool:
        """Whether the call still waits, so that its thread number is still its own."""
        _ID.pack_into(self._id, 0, one)
        try:
            fcntl.ioctl(self.fd, _ID_VALID, self._id)
        except OSError:
            return False
        return True

    def replace(self, one: int, fd: int, there: int, *, cloexec: bool) -> None:
        """Make descriptor `there` of the caller a copy of our `fd`, as dup3(2) would."""
        flags = os.O_CLOEXEC if cloexec else 0
        fcntl.ioctl(self.fd, _ADD, _ADDFD.pack(one, _SETFD, fd, there, flags))

    def close(self) -> None:
        """Calls that wait, and all that come, fail with ENOSYS if nobody else holds the listener."""
        os.close(self.fd)
