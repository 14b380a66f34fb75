"""mfusepy, and the three calls of libfuse that it does not wrap.

mfusepy takes libfuse 2 where both are installed; libfuse 3 is preferred here, unless the variables
of mfusepy (`FUSE_LIBRARY_PATH`, `FUSE_LIBRARY_NAME`) say otherwise. libfuse 2 works as well: its
notifications go through the channel of the session.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes.util import find_library
from typing import Any

from fakedev.model.errors import HostError

CHOICES = ("FUSE_LIBRARY_PATH", "FUSE_LIBRARY_NAME")
PREFERRED = "fuse3"
NO_BINDING = "--backend fusepy needs mfusepy: pip install 'fakedev[fusepy]'"
NO_LIBRARY = (
    "install libfuse: the package fuse3 (Debian, Ubuntu, Arch, Alpine), fuse3-libs (Fedora)"
    " or fusefs-libs (FreeBSD), or macFUSE on macOS"
)
THREADS = 16


def load() -> Any:
    """The module `mfusepy`. Raises HostError that says what to install."""
    chosen = any(os.environ.get(name) for name in CHOICES)
    preferred = not chosen and sys.platform == "linux" and find_library(PREFERRED) is not None
    if preferred:
        os.environ[CHOICES[1]] = PREFERRED
    try:
        import mfusepy  # noqa: PLC0415 - an optional extra, which loads libfuse when it is imported
    except ImportError:
        raise HostError(NO_BINDING) from None
    except (OSError, AttributeError, NotImplementedError) as error:
        raise HostError(
            f"mfusepy finds no libfuse that it can use ({error}): {NO_LIBRARY}"
        ) from None
    finally:
        if preferred:
            del os.environ[CHOICES[1]]
    return mfusepy


def options(mfusepy: Any) -> dict[str, Any]:
    """Mount options by which both generations of libfuse behave alike."""
    version = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
    if version >= (3, 12):  # 3.14 complains about its own default for idle threads
        return {"max_threads": THREADS, "max_idle_threads": THREADS}
    if version < (3, 0) and sys.platform == "linux":
        return {"big_writes": True, "atomic_o_trunc": True}
    return {}


class Native:
    """Calls on the `struct fuse *` of a running mount. They release the GIL."""

    __slots__ = ("_channel", "_exit", "_invalidate", "_session")

    def __init__(self, mfusepy: Any) -> None:
        library = ctypes.CDLL(mfusepy._libfuse._name)  # noqa: SLF001 - not public, and not wrapped
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        nodeid = ctypes.c_uint64 if mfusepy.fuse_version_major >= 3 else ctypes.c_ulong
        self._session = _function(library, "fuse_get_session", pointer, pointer)
        self._exit = _function(library, "fuse_exit", None, pointer)
        self._invalidate = _function(
            library, "fuse_lowlevel_notify_inval_inode", ctypes.c_int,
            pointer, nodeid, number, number,
        )  # fmt: skip
        self._channel: Callable[..., Any] | None = None
        if mfusepy.fuse_version_major < 3:
            self._channel = _function(library, "fuse_session_next_chan", pointer, pointer, pointer)

    def invalidate(self, fuse: int, nodeid: int, offset: int, size: int) -> None:
        """Write back and drop the cached pages of a part of a file, in every process that maps it.

        Blocks until both is done. An inode that the kernel does not know is none of our business.
        """
        session = self._session(fuse)
        self._invalidate(self._channel(session, None) if self._channel else session,
                         nodeid, offset, size)  # fmt: skip

    def leave(self, fuse: int) -> None:
        """Make the loop end at its next request (`fuse_exit`)."""
        self._exit(fuse)


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = library[name]  # a new object each time: mfusepy's own prototypes stay as they are
    function.restype = result
    function.argtypes = list(arguments)
    return function
