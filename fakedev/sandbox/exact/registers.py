"""Registers of a stopped thread, and what a system call is made of: x86-64, i386, aarch64."""

import struct
from typing import NamedTuple

_EINTR = 4
_ERESTARTNOHAND = 514


class Abi(NamedTuple):
    """How a thread calls the kernel. Places are indices of NT_PRSTATUS.

    `before` holds the number of the call that a thread was stopped in, None where the kernel has
    decided about its restart before (aarch64). `interruptible`: calls that every stop ends with
    EINTR (signal(7)). `clear`: bits of the flags that would refuse a jump (BTYPE).
    """

    layout: struct.Struct
    instruction: bytes
    pc: int
    number: int
    arguments: tuple[int, int, int]
    result: int
    before: int | None
    madvise: int
    munlock: int
    interruptible: frozenset[int] = frozenset()
    flags: int = 0
    clear: int = 0

    @property
    def bits(self) -> int:
        """The width of a register."""
        return 32 if self.layout.format.endswith("I") else 64

    def signed(self, word: int) -> int:
        """A register as a result."""
        return word - (1 << self.bits) if word >> self.bits - 1 else word

    def calling(self, words: list[int], at: int, call: tuple[int, int, int, int]) -> list[int]:
        """The registers with which the instruction at `at` makes a call: number, three arguments."""
        changed = list(words)
        number, *arguments = call
        changed[self.pc] = at
        changed[self.number] = number
        for place, value in zip(self.arguments, arguments, strict=True):
            changed[place] = value
        if self.before is not None:
            changed[self.before] = (1 << self.bits) - 1  # in no call: nothing is restarted
        changed[self.flags] &= ~self.clear
        return changed

    def undisturbed(self, words: list[int]) -> list[int]:
        """With the EINTR taken back that only our stop has caused: a signal with a handler brings it again."""
        if self.before is None or words[self.before] not in self.interruptible:
            return words
        changed = list(words)
        if self.signed(changed[self.result]) == -_EINTR:
            changed[self.result] = (1 << self.bits) - _ERESTARTNOHAND
        return changed


_X86_64 = Abi(
    struct.Struct("=27Q"),  # struct user_regs_struct
    b"\x0f\x05",  # syscall
    pc=16,
    number=10,
    arguments=(14, 13, 12),
    result=10,
    before=15,
    madvise=28,
    munlock=150,
    # recvfrom and other calls of sockets with a timeout, semop, rt_sigtimedwait, io_getevents,
    # semtimedop, epoll_wait, epoll_pwait, io_uring_enter, epoll_pwait2
    interruptible=frozenset((43, 44, 45, 46, 47, 65, 128, 208, 220, 232, 281, 288, 299, 426, 441)),
)
_I386 = Abi(
    struct.Struct("=17I"),  # struct user_regs_struct32
    b"\xcd\x80",  # int $0x80
    pc=12,
    number=6,
    arguments=(0, 1, 2),
    result=6,
    before=11,
    madvise=219,
    munlock=151,
    # rt_sigtimedwait, io_getevents, epoll_wait, epoll_pwait, io_uring_enter, epoll_pwait2; those with
    # times of 64 bits
    interruptible=frozenset((177, 247, 256, 319, 416, 420, 421, 426, 441)),
)
_AARCH64 = Abi(
    struct.Struct("=34Q"),  # struct user_pt_regs
    b"\x01\x00\x00\xd4",  # svc #0
    pc=32,
    number=8,
    arguments=(0, 1, 2),
    result=0,
    before=None,
    madvise=233,
    munlock=229,
    flags=33,
    clear=0xC00,
)
# By the size of NT_PRSTATUS.
ABIS = {abi.layout.size: abi for abi in (_X86_64, _I386, _AARCH64)}
