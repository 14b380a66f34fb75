"""The exact layer: system calls that a file system is not asked about, answered before the kernel does.

A seccomp filter in the tool (`bpf`, `rules`, `numbers`) sends a few calls to a supervisor thread of the
process that serves the machine (`supervisor`). Descriptors that are not ours continue untouched, at the
price of one look at /proc; ours get the answer of their node (`fakedev.views.calls`).
"""
