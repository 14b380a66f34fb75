"""Short forms to the canonical form, on the node tree, so that every place stays exact.

Text and lines of `/proc/iomem` and `/proc/ioports` become entries with children; a plain text below
`files:` becomes `{text: ...}` (and the overlay directory `{file: ...}`).
"""

from __future__ import annotations

import re

from fakedev.profiles.nodes import Node, Place, Scalar, kind

LEVEL_LIMIT = 32
_LINE = re.compile(r"(\s*)([0-9a-fA-F]+-[0-9a-fA-F]+)\s*:\s(.*\S)\s*")
_FORM = '"000a0000-000bffff : PCI Bus 0000:00"'


def desugar(root: Node, problems: list[str]) -> None:
    """Rewrites the short forms in `root`; appends lines that cannot be read to `problems`."""
    pci = root.child("pci")
    for node in (root.child("iomem"), pci and pci.child("ports")):
        if node is not None:
            _iomem(node, problems)
    files = root.child("files")
    if files is not None and isinstance(files.value, dict):
        for path, node in files.value.items():
            if isinstance(node.value, str):
                form = "file" if path == "overlay" else "text"
                files.value[path] = _wrap(node, {form: node.copy()})


def _wrap(node: Node, members: dict[str, Node]) -> Node:
    made = Node(dict(members), node.place)
    made.key_place = node.key_place
    return made


def _iomem(node: Node, problems: list[str]) -> None:
    if isinstance(node.value, str):
        node.value = _text(node, node.value, problems)
    elif isinstance(node.value, list):
        _entries(node.value, problems)


def _entries(entries: list[Node], problems: list[str]) -> None:
    kept = []
    for node in entries:
        made = _line(node.value, node.place, problems) if isinstance(node.value, str) else node
        children = node.child("children")
        if children is not None:
            _iomem(children, problems)
        if made is not None:
            kept.append(made)
    entries[:] = kept


def _line(text: str, place: Place, problems: list[str]) -> Node | None:
    match = _LINE.fullmatch(text)
    if match is None:
        problems.append(f"{place}: not a line of /proc/iomem: {kind(text)}; write {_FORM}")
        return None
    _, span, name = match.groups()
    return Node({"range": Node(Scalar(span), place), "name": Node(Scalar(name), place)}, place)


def _text(node: Node, text: str, problems: list[str]) -> list[Node]:
    """The lines of a paste, nested by their indent."""
    top: list[Node] = []
    open_levels: list[tuple[int, list[Node]]] = [(-1, top)]
    for index, line in enumerate(text.split("\n")):
        if not line.strip():
            continue
        made = _line(line, node.line_place(index), problems)
        if made is None or not isinstance(made.value, dict):
            continue
        indent = len(line) - len(line.lstrip())
        while open_levels[-1][0] >= indent:
            open_levels.pop()
        if len(open_levels) > LEVEL_LIMIT:
            problems.append(f"{made.place}: nested more than {LEVEL_LIMIT} levels deep")
            break
        open_levels[-1][1].append(made)
        children: list[Node] = []
        made.value["children"] = Node(children, made.place)
        open_levels.append((indent, children))
    if top and all(_all_zero(entry) for entry in top):
        problems.append(f"{node.place}: every address is zero: this /proc/iomem was captured "
                        "without root; capture it again with sudo")  # fmt: skip
        return []
    return top


def _all_zero(entry: Node) -> bool:
    span = entry.child("range")
    return span is not None and isinstance(span.value, str) and not span.value.strip("0-")
