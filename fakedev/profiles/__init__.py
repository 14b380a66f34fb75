"""Machine profiles: YAML files to machines. The schema is imported when a profile must be read."""

from typing import Any

from fakedev.profiles.bundled import bundled_profiles
from fakedev.profiles.loader import check_file, load_profile
from fakedev.profiles.plan import Profile

__all__ = ["Profile", "bundled_profiles", "check_file", "json_schema", "load_profile"]


def json_schema() -> dict[str, Any]:
    """The JSON schema of profiles, for editors."""
    from fakedev.profiles.schema import json_schema as made  # noqa: PLC0415 - pydantic is slow to import

    return made()
