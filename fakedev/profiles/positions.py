"""YAML text to a tree of nodes that remember their line and column.

Scalars stay text: the schema decides what a text means, so `version: 6.10`, `hex: 00112233` and
`name: no` need no quotes. The parser's event stream is read iteratively; documents whose aliases
expand beyond a budget, or that nest too deep, are refused before anything is expanded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fakedev.model.errors import ProfileError
from fakedev.profiles.nodes import Node, Place, Scalar

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH_LIMIT = 64
# One unit is a node or 64 characters of text, after the expansion of aliases.
WEIGHT_LIMIT = 1_000_000
PROBLEM_LIMIT = 200

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset({_CORE + name for name in ("int", "float", "bool", "null", "map", "seq")})
_HINTS = {
    "mapping values are not allowed": "a text that contains ': ' needs quotes around it",
    "cannot start any token": "indent with spaces, and quote a text that starts with a sign",
    "expected <block end>": "the keys of one mapping start in the same column",
    "expected ':'": "each line of a mapping is `key: value`",
    "undefined alias": "define it first with &name",
}


class _Open:
    """A collection whose end has not come yet."""

    __slots__ = ("anchor", "key", "merges", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: tuple[str, Place] | None = None
        self.merges: list[Node] = []


class _Reader:
    """Builds the tree from parser events."""

    def __init__(self, file: str, problems: list[str]) -> None:
        self.file = file
        self.problems = problems
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}
        self.root: Node | None = None
        self.total = 0
        self.documents = 0

    def feed(self, event: Any) -> None:
        handler = getattr(self, "on_" + type(event).__name__, None)
        if handler is not None:
            mark = event.start_mark
            handler(event, Place(self.file, mark.line + 1, mark.column + 1))

    def fail(self, place: Place, text: str) -> None:
        raise ProfileError([*self.problems, f"{place}: {text}"])

    def spend(self, weight: int, place: Place) -> None:
        self.total += weight
        if self.total > WEIGHT_LIMIT:
            self.fail(place, "the document grows too large here (aliases that repeat aliases?); "
                      f"at most {WEIGHT_LIMIT:,} values are read")  # fmt: skip

    def tag(self, event: Any, place: Place) -> None:
        if event.tag not in _PLAIN_TAGS and event.tag not in {None, "!", _CORE + "str"}:
            shown = event.tag.replace(_CORE, "!!")
            self.problems.append(f"{place}: the tag {shown} means nothing here; leave it out")

    def on_DocumentStartEvent(self, _event: Any, place: Place) -> None:  # noqa: N802
        self.documents += 1
        if self.documents > 1:
            self.fail(place, "a second document starts here; a profile is one YAML document")

    def on_ScalarEvent(self, event: Any, place: Place) -> None:  # noqa: N802
        self.tag(event, place)
        text = Scalar(event.value)
        text.plain = bool(event.implicit[0]) or event.tag in _PLAIN_TAGS
        null = text.plain and text in _NULLS
        if self.waits_for_key():
            self.take_key(text, place)
            return
        node = Node(None if null else text, place, weight=1 + len(text) // 64)
        node.literal = event.style == "|"
        self.spend(node.weight, place)
        self.close(node, event.anchor)

    def on_AliasEvent(self, event: Any, place: Place) -> None:  # noqa: N802
        target = self.anchors.get(event.anchor)
        if target is None:
            why = (
                "is used inside itself" if event.anchor in self.anchors else "is not defined above"
            )
            self.fail(place, f"the alias *{event.anchor} {why}")
            return
        if self.waits_for_key():
            self.fail(place, "an alias cannot be a key; write the key itself")
        self.spend(target.weight, place)
        self.attach(target.copy())

    def on_MappingStartEvent(self, event: Any, place: Place) -> None:  # noqa: N802
        self.open(event, Node({}, place))

    def on_SequenceStartEvent(self, event: Any, place: Place) -> None:  # noqa: N802
        self.open(event, Node([], place))

    def on_MappingEndEvent(self, _event: Any, _place: Place) -> None:  # noqa: N802
        top = self.stack.pop()
        own = top.node.value
        if isinstance(own, dict):
            for source in top.merges:
                for key, node in _merge_source(source):
                    own.setdefault(key, node)
        self.close(top.node, top.anchor)

    def on_SequenceEndEvent(self, _event: Any, _place: Place) -> None:  # noqa: N802
        top = self.stack.pop()
        self.close(top.node, top.anchor)

    def open(self, event: Any, node: Node) -> None:
        self.tag(event, node.place)
        self.spend(1, node.place)
        if self.waits_for_key():
            self.fail(node.place, "a key must be a text, not a list or a mapping")
        if len(self.stack) >= DEPTH_LIMIT:
            self.fail(node.place, f"nested more than {DEPTH_LIMIT} levels deep")
        if event.anchor:
            self.anchors[event.anchor] = None
        self.stack.append(_Open(node, event.anchor))

    def close(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
        self.attach(node)

    def waits_for_key(self) -> bool:
        if not self.stack:
            return False
        top = self.stack[-1]
        return isinstance(top.node.value, dict) and top.key is None

    def take_key(self, text: Scalar, place: Place) -> None:
        top = self.stack[-1]
        top.key = ("\0merge" if text == "<<" and text.plain else str(text), place)
        self.spend(1 + len(text) // 64, place)

    def attach(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        top.node.weight += node.weight
        if isinstance(top.node.value, list):
            top.node.value.append(node)
        elif isinstance(top.node.value, dict) and top.key is not None:
            (key, node.key_place), top.key = top.key, None
            self.attach_entry(top, key, node)

    def attach_entry(self, top: _Open, key: str, node: Node) -> None:
        entries = top.node.value
        if not isinstance(entries, dict):
            return
        if key == "\0merge":
            top.merges.append(node)
        elif key in entries:
            if len(self.problems) >= PROBLEM_LIMIT:
                self.fail(node.key_place, "too many problems; the rest of the file was not read")
            first = entries[key].key_place.line
            self.problems.append(f"{node.key_place}: the key {key!r} stands twice in this mapping "
                                 f"(first on line {first}); keep one")  # fmt: skip
        else:
            entries[key] = node


def _merge_source(node: Node) -> Iterator[tuple[str, Node]]:
    sources = node.value if isinstance(node.value, list) else [node]
    for source in sources:
        if isinstance(source.value, dict):
            yield from source.value.items()


def _events(text: str) -> Iterator[Any]:
    import yaml  # noqa: PLC0415 - not needed when the compiled profile is cached

    return yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def decode(data: bytes, file: str) -> str:
    """The text of a profile file; ProfileError for binary files and for bytes that are not UTF-8."""
    if (zero := data.find(b"\0")) >= 0:
        raise ProfileError([(f"{file}: this is a binary file (a NUL byte at offset {zero}), "
                            "not a YAML profile")])  # fmt: skip
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the mark.
        mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        offset = error.start + mark
        line = data.count(b"\n", 0, offset) + 1
        column = offset - max(data.rfind(b"\n", 0, offset) + 1, mark) + 1
        raise ProfileError([(f"{file}:{line}:{column}: byte {data[offset]:#04x} at offset {offset} "
                            "is not UTF-8; save the file as UTF-8")]) from None  # fmt: skip


def parse_yaml(text: str, file: str, problems: list[str]) -> Node | None:
    """The tree of a document, or None for an empty one.

    Appends what is wrong but does not stop the reading (duplicate keys, tags) to `problems`;
    raises ProfileError, with those problems in it, for what does.
    """
    import yaml  # noqa: PLC0415

    reader = _Reader(file, problems)
    try:
        for event in _events(text):
            reader.feed(event)
    except yaml.MarkedYAMLError as error:
        raise ProfileError([*problems, _syntax(error, file)]) from None
    except yaml.reader.ReaderError as error:
        raise ProfileError([*problems, _unprintable(error, text, file)]) from None
    except yaml.YAMLError as error:
        raise ProfileError([*problems, f"{file}: not YAML: {error}"]) from None
    return reader.root


def _syntax(error: Any, file: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 0, 0)
    text = f"{place}: not YAML: {error.problem or error.context}"
    if error.context and error.problem:
        text += f" ({error.context})"
    hints = [hint for part, hint in _HINTS.items() if part in str(error.problem)]
    return text + "".join(f"; {hint}" for hint in hints)


def _unprintable(error: Any, text: str, file: str) -> str:
    position = error.position if isinstance(error.position, int) else 0
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
    return (f"{file}:{line}:{column}: the control character U+{code:04X} is not allowed in YAML; "
            'write it as an escape in double quotes ("\\x1b")')  # fmt: skip
