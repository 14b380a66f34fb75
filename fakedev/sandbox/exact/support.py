"""Whether this host lets us install the filter of the exact layer."""

import functools
import platform

from fakedev.sandbox import probes
from fakedev.sandbox.exact import listener
from fakedev.sandbox.exact.numbers import HOSTS
from fakedev.sandbox.refusals import explain_exact, is_filtered


@functools.cache
def exact_refusal() -> str:
    """Why the exact layer cannot work here; empty when it can."""
    if platform.machine() not in HOSTS:
        return f"there is no table of system calls for {platform.machine()}"
    if not listener.is_known():
        return "this kernel has no seccomp user notification (5.0 or later has)"
    if not is_filtered():
        return ""
    tried = probes.attempt(
        probes.exact_layer
    )  # whoever filters us may have a listener, or forbid one
    return "" if tried.ok else explain_exact(tried.errno, tried.detail).reason
