"""Profiles written to a temporary folder, and what fakedev says about them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fakedev.model.errors import ProfileError
from fakedev.profiles import check_file, load_profile
from fakedev.profiles.plan import Profile

RAM = "firmware: {e820: [{range: 0-9fbff, type: System RAM}, {range: 100000-3ffffff}]}\n"


class Folder:
    """A folder of profiles. Texts begin behind `fakedev: 1`, so that they start on line 2."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str, name: str = "m.yaml") -> str:
        (self.path / name).write_text("fakedev: 1\n" + text)
        return name

    def check(self, text: str) -> list[str]:
        return check_file(self.write(text))

    def load(self, text: str, overrides: Sequence[str] = ()) -> Profile:
        return load_profile(self.write(text), overrides=overrides)

    def refused(self, text: str, overrides: Sequence[str] = ()) -> list[str]:
        with pytest.raises(ProfileError) as caught:
            self.load(text, overrides)
        return caught.value.problems
