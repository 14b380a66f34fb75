"""Marks for tests that need something of the host; each skip names the exact missing thing."""

import functools

import pytest

from fakedev.sandbox import doctor


@functools.cache
def layers() -> dict[str, doctor.Layer]:
    return {layer.name: layer for layer in doctor.examine()}


def _mark(name: str) -> pytest.MarkDecorator:
    layer = layers()[name]
    return pytest.mark.skipif(not layer.ok, reason=f"{name}: {layer.reason}; {layer.remedy}")


needs_sandbox = _mark("run")
