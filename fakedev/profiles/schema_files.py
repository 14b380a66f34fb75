"""Schema of `files:`: extra entries below /proc, /sys and /dev."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from fakedev.profiles.fields import Base64Bytes, HexBytes, Mode, Number, Part

FILE_KINDS = ("text", "hex", "base64", "file", "symlink", "directory")


class FileEntry(Part):
    """A file served as it is. A plain text is the short form of `{text: ...}`."""

    text: str | None = Field(None, description="UTF-8 content")
    hex: HexBytes | None = Field(None, description="content as hexadecimal digits")
    base64: Base64Bytes | None = Field(None, description="content as base64")
    file: str | None = Field(None, description="content from a file, relative to this profile")
    symlink: str | None = Field(None, description="a symbolic link to this target", min_length=1)
    directory: bool | None = Field(None, description="true: an empty directory")
    mode: Mode | None = Field(None, description="permissions (0o444; directories 0o755)")
    size: Number | None = Field(
        None, description="the size that stat shows (not given: the content's)"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> FileEntry:
        given = [name for name in FILE_KINDS if getattr(self, name) not in {None, False}]
        if len(given) != 1:
            found = " and ".join(map(repr, given)) or "none"
            raise ValueError(
                f"one kind of entry is needed, not {found}; give one of {', '.join(FILE_KINDS)}"
            )
        if given[0] == "symlink" and self.mode is not None:
            raise ValueError("a symbolic link has no mode; take 'mode' out")
        return self


FILES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "extra files: absolute path to content; `overlay` names a directory whose tree "
    "is served as it is",
    "properties": {
        "overlay": {"type": "string", "description": "directory, relative to this profile"}
    },
    "propertyNames": {"pattern": "^(overlay|/(proc|sys|dev)/.+)$"},
    "additionalProperties": {
        "anyOf": [
            {"type": "string", "description": "text"},
            {"$ref": "#/$defs/FileEntry"},
            {"type": "null", "description": "takes an inherited file away"},
        ]
    },
    "examples": [
        {"/proc/version": "Linux version 6.1.0\n", "/sys/class/dmi/id": {"symlink": "../x"}}
    ],
}
