"""The tree that YAML becomes: text, lists and mappings that know where they are written."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias


class Place(NamedTuple):
    """Where something was written; line and column count from 1, line 0 means `file` says it all."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """`file:line:col`, as compilers print it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Scalar(str):
    """The text of a scalar. `plain` is true where it stood without quotes."""

    __slots__ = ("plain",)
    plain: bool


Value: TypeAlias = "Scalar | list[Node] | dict[str, Node] | None"


class Node:
    """A value with its place; `key_place` is where its key stands in the mapping above it."""

    __slots__ = ("key_place", "literal", "place", "value", "weight")

    def __init__(self, value: Value, place: Place, *, weight: int = 1) -> None:
        self.value = value
        self.place = place
        self.key_place = place
        self.weight = weight
        self.literal = False

    def copy(self) -> Node:
        """The same value under another key."""
        twin = Node(self.value, self.place, weight=self.weight)
        twin.literal = self.literal
        return twin

    def plain(self) -> Any:
        """The value without places: text, None, lists, dicts. A key with null counts as not given."""
        if isinstance(self.value, dict):
            items = self.value.items()
            return {key: node.plain() for key, node in items if node.value is not None}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, path: tuple[int | str, ...]) -> Node:
        """The node at `path`, or the deepest one on the way to it."""
        node = self
        for step in path:
            child = node.child(step)
            if child is None:
                break
            node = child
        return node

    def child(self, step: int | str) -> Node | None:
        """The member of a mapping or list, or None."""
        if isinstance(self.value, dict):
            return self.value.get(str(step))
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]
        return None

    def line_place(self, index: int) -> Place:
        """The place of line `index` of a `|` block; for other texts the place of the text."""
        if not self.literal:
            return self.place
        return Place(self.place.file, self.place.line + 1 + index, 1)


def kind(value: object) -> str:
    """What a value is, in the words of an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")
