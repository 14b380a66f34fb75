# File names stay the texts that people wrote, for messages quote them.
# ruff: noqa: PTH110, PTH118, PTH120
"""A profile file, with all that it extends, to a compiled profile.

Stages: text to nodes (`positions`), `extends` and `--set` (`merging`), short forms (`desugar`),
shapes (`schema`), everything between places (`compile`). Each stage reports all it can find.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from fakedev.model.errors import ProfileError
from fakedev.profiles.blobs import PROFILE_LIMIT, BlobError, Inputs, read_regular
from fakedev.profiles.bundled import bundled_names, bundled_path
from fakedev.profiles.compile import compile_document
from fakedev.profiles.context import Context
from fakedev.profiles.desugar import desugar
from fakedev.profiles.garbage import no_collections
from fakedev.profiles.merging import apply_override, merge, suggest
from fakedev.profiles.messages import explain
from fakedev.profiles.nodes import Node, Place, kind
from fakedev.profiles.plan import Profile
from fakedev.profiles.positions import PROBLEM_LIMIT, decode, parse_yaml
from fakedev.profiles.schema import SCHEMA_VERSION, Document

EXTENDS_LIMIT = 64
VERSION = str(SCHEMA_VERSION)
# Nothing else depends on these.
_APART = ("name", "description", "kernel", "iomem", "files", "memory_blocks", "cxl", "dax")
_NEAR_APART = frozenset(suggest(name, [name]) for name in _APART)
_IN_PARTS = frozenset({"memory", "firmware", "files"})


class _Documents:
    """Reads a profile and everything that it extends."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.problems: list[str] = []
        self.read: dict[str, Node | None] = {}
        self.merged = 0

    def load(
        self, path: str, chain: tuple[tuple[str, str], ...] = (), asked: Place | None = None
    ) -> Node | None:
        """The merged tree of `path`; None (and problems) where there is none to use."""
        if "\0" in path:
            self.problems.append(f"{asked or repr(path)}: a file name cannot hold a NUL byte")
            return None
        identity = os.path.realpath(path)
        if identity in (real for real, _ in chain):
            names = " -> ".join([*(shown for _, shown in chain), path])
            self.problems.append(
                f"{asked}: extends goes in a circle: {names}; take one of them out"
            )
            return None
        self.merged += 1
        if self.merged > EXTENDS_LIMIT:
            self.problems.append(
                f"{asked or path}: more than {EXTENDS_LIMIT} profiles extend each other"
            )
            return None
        if identity not in self.read:
            self.read[identity] = self._read(path, asked)
        node = self.read[identity]
        return node and self._extended(node, path, (*chain, (identity, path)))

    def _extended(self, node: Node, path: str, chain: tuple[tuple[str, str], ...]) -> Node:
        bases = node.child("extends")
        base: Node | None = None
        for name in self._names(bases):
            if self.merged > EXTENDS_LIMIT:
                break
            found = self._base(name, path)
            if found is None:
                continue
            below = self.load(found, chain, name.place)
            if below is not None:
                base = below if base is None else merge(base, below)
        return node if base is None else merge(base, node)

    def _names(self, bases: Node | None) -> list[Node]:
        if bases is None or bases.value is None:
            return []
        names = bases.value if isinstance(bases.value, list) else [bases]
        for name in names:
            if not isinstance(name.value, str):
                self.problems.append(f"{name.place}: extends: a bundled name or a path is needed here, "
                                     f"not {kind(name.value)}")  # fmt: skip
        return [name for name in names if isinstance(name.value, str)]

    def _base(self, name: Node, path: str) -> str | None:
        text = str(name.value)
        beside = os.path.join(os.path.dirname(path), text)
        looks_like_path = "/" in text or text.endswith((".yaml", ".yml"))
        found = None if looks_like_path else bundled_path(text)
        if found or looks_like_path or os.path.exists(beside):
            return found or beside
        names = bundled_names()
        self.problems.append(f"{name.place}: extends: there is no profile {text!r}{suggest(text, names)}; "
                             f"bundled are {', '.join(names)}; or give a path")  # fmt: skip
        return None

    def _read(self, path: str, asked: Place | None) -> Node | None:
        try:
            data = read_regular(path, limit=PROFILE_LIMIT)
        except BlobError as error:
            self.problems.append(
                f"{asked}: extends {path}: {error}" if asked else f"{path}: {error}"
            )
            return None
        self.inputs.record(path, data)
        try:
            node = parse_yaml(decode(data, path), path, self.problems)
        except ProfileError as error:
            self.problems += [line for line in error.problems if line not in self.problems]
            return None
        if node is None or not isinstance(node.value, dict):
            self.problems.append(_no_mapping(node, path))
            return None
        if not self._version(node):
            return None
        desugar(node, self.problems)
        return node

    def _version(self, node: Node) -> bool:
        """Checks `fakedev: 1`; false for another version, whose keys may mean something else."""
        version = node.child("fakedev")
        if version is None:
            self.problems.append(f"{node.place}: 'fakedev' is missing; begin with `fakedev: {VERSION}` "
                                 "(the version of the schema)")  # fmt: skip
        elif version.value != VERSION:
            self.problems.append(f"{version.place}: fakedev: {kind(version.value)} is not a schema "
                                 f"version that this fakedev reads; write `fakedev: {VERSION}`")  # fmt: skip
            return False
        return True


def _no_mapping(node: Node | None, path: str) -> str:
    if node is None or node.value is None:
        return f"{path}:1:1: the file is empty; begin with `fakedev: {VERSION}`"
    return (f"{node.place}: a profile is a mapping that begins with `fakedev: {VERSION}`, "
            f"not {kind(node.value)}")  # fmt: skip


def read_profile(path: str, overrides: Sequence[str]) -> Profile:
    """The profile in the file `path`. Raises ProfileError with every problem."""
    with no_collections():
        return _read_profile(path, overrides)


def _read_profile(path: str, overrides: Sequence[str]) -> Profile:
    inputs = Inputs()
    documents = _Documents(inputs)
    root = documents.load(path)
    problems = documents.problems
    if root is None:
        raise ProfileError(_limited(problems))
    root = _overridden(root, overrides, problems)
    profile = _compiled(root, path, inputs, problems)
    if problems or profile is None:
        raise ProfileError(_limited(problems))
    return profile


def _limited(problems: list[str]) -> list[str]:
    unique = list(dict.fromkeys(problems))
    if len(unique) <= PROBLEM_LIMIT:
        return unique
    return [*unique[:PROBLEM_LIMIT], f"... and {len(unique) - PROBLEM_LIMIT:,} more problems"]


def _overridden(root: Node, overrides: Sequence[str], problems: list[str]) -> Node:
    for option in overrides:
        try:
            root = apply_override(root, option)
        except ProfileError as error:
            problems += error.problems
    if overrides:
        desugar(root, problems)
        version = root.child("fakedev")
        if version is not None and version.value != VERSION:
            problems.append(f"{version.place}: only `fakedev: {VERSION}` can be read")
    return root


def _compiled(root: Node, path: str, inputs: Inputs, problems: list[str]) -> Profile | None:
    """Shapes first; then, as far as they are good, what lies between places."""
    context = Context(root, inputs)
    document = _document(root, context, problems)
    if document is None:
        return None
    profile = compile_document(document, path, context)
    problems += context.lines()
    return profile


def _document(root: Node, context: Context, problems: list[str]) -> Document | None:
    """The validated document; where parts of it are wrong, the document without them."""
    data = root.plain()
    data["fakedev"] = VERSION
    try:
        return Document.model_validate(data)
    except ValidationError as error:
        problems += explain(error, root, Document)
        context.spoilt = frozenset(_without(data, error))
    try:
        return Document.model_validate(data)
    except ValidationError:
        return None


def _without(data: dict[str, Any], error: ValidationError) -> Iterator[str]:
    """Takes what is wrong out of `data`; yields the names of the sections that are gone."""
    hidden = False
    for entry in error.errors(include_url=False, include_input=False):
        loc = entry["loc"]
        unknown = entry["type"] == "extra_forbidden"
        if unknown and not hidden and _may_hide_memory(loc):
            hidden = True
            yield from ("memory", "firmware.e820", "pci")
        size = len(loc) if unknown else 2 if loc[0] in _IN_PARTS else 1
        _take(data, loc[:size])
        if not unknown:
            yield ".".join(map(str, loc[:size]))


def _may_hide_memory(loc: Sequence[int | str]) -> bool:
    """A misspelt key may be the section on which other parts depend."""
    if len(loc) > 1:
        return loc[0] == "pci" or (len(loc) == 2 and loc[0] in {"memory", "firmware"})
    return suggest(str(loc[0]), [*_APART, "memory", "firmware", "pci"]) not in _NEAR_APART


def _take(data: Any, loc: Sequence[int | str]) -> None:
    for step in loc[:-1]:
        if isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            data = data.get(step) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(loc[-1], None)
