# File names stay the texts that people wrote, for messages quote them.
# ruff: noqa: PTH110
"""Profiles by name or path: `load_profile`, `check_file`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fakedev.model.errors import ProfileError
from fakedev.profiles import cache
from fakedev.profiles.bundled import bundled_names, bundled_path
from fakedev.profiles.plan import Profile


def load_profile(name_or_path: str, *, overrides: Sequence[str] = ()) -> Profile:
    """A bundled profile by name, or a file, with `KEY.PATH=VALUE` overrides, checked and compiled.

    Raises ProfileError with every problem, one line each: `file:line:col: what, and what would be
    right` (`--set OPTION: ...` for an override).
    """
    path = find_profile(name_or_path)
    cached = cache.lookup(path, overrides)
    if cached is not None:
        return cached
    from fakedev.profiles.reading import read_profile  # noqa: PLC0415 - not needed when cached

    profile = read_profile(path, overrides)
    cache.store(profile, path, overrides)
    return profile


def check_file(path: str) -> list[str]:
    """Everything that is wrong with a profile; an empty list when it is good."""
    from fakedev.profiles.reading import read_profile  # noqa: PLC0415

    try:
        read_profile(find_profile(path), ())
    except ProfileError as error:
        return error.problems
    return []


def find_profile(name_or_path: str) -> str:
    """The file of a profile. A bare word is a bundled name first. Raises ProfileError."""
    looks_like_path = os.sep in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if not looks_like_path and (bundled := bundled_path(name_or_path)):
        return bundled
    if looks_like_path or os.path.exists(name_or_path):
        return name_or_path
    from fakedev.profiles.merging import suggest  # noqa: PLC0415 - difflib is slow to import

    names = bundled_names()
    raise ProfileError([(f"there is no profile {name_or_path!r}{suggest(name_or_path, names)}; bundled "
                        f"are {', '.join(names)}; or give the path of a YAML file")])  # fmt: skip
