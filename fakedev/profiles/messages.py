"""pydantic's errors as `file:line:col: what is wrong, and what would be right`."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fakedev.profiles.merging import suggest
from fakedev.profiles.nodes import Node, kind
from fakedev.profiles.positions import PROBLEM_LIMIT

_EXAMPLES = {"range": "d8100000-d810ffff", "name": '"PCI Bus 0000:00"'}


def explain(error: ValidationError, root: Node, model: type[BaseModel]) -> list[str]:
    """One line for each error, in the order of the file."""
    found = []
    for entry in error.errors(include_url=False)[: PROBLEM_LIMIT + 1]:
        node, text = _line(entry, root, model)
        place = node.key_place if entry["type"] == "extra_forbidden" else node.place
        found.append((place, f"{place}: {text}"))
    return [text for _, text in sorted(found)]


def _line(entry: Any, root: Node, model: type[BaseModel]) -> tuple[Node, str]:
    loc: tuple[int | str, ...] = entry["loc"]
    node = root.find(loc)
    where = ".".join(map(str, loc))
    code = entry["type"]
    if code == "extra_forbidden":
        return node, _unknown(loc, model)
    if code == "missing":
        return root.find(loc[:-1]), f"{str(loc[-1])!r} is missing{_example(loc, model)}"
    return node, _wrong(entry, where, code)


_NEEDED = {
    "model_type": "a mapping (`key: value` lines) is",
    "dict_type": "a mapping (`key: value` lines) is",
    "list_type": "a list (`- ...` lines) is",
    "string_type": "a text is",
    "bool_parsing": "true or false is",
    "bool_type": "true or false is",
    "string_too_short": "at least one character is",
}


def _wrong(entry: Any, where: str, code: str) -> str:
    value, context = entry["input"], entry.get("ctx", {})
    if code in _NEEDED:
        text = f"{_NEEDED[code]} needed here, not {kind(value)}"
    elif code == "value_error":
        text = str(context["error"])
    elif code == "literal_error":
        text = f"{kind(value)} is not one of {context['expected']}{_close(value, context)}"
    elif code in {"less_than_equal", "greater_than_equal"}:
        text = f"{kind(value)} is out of range; {_bound(context)}"
    elif code == "too_long":
        text = f"at most {context['max_length']} members are read, not {context['actual_length']}"
    else:
        text = f"{entry['msg']}, not {kind(value)}"
    return f"{where}: {text}" if where else text


def _close(value: object, context: Any) -> str:
    words = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
    return suggest(str(value), words)


def _bound(context: Any) -> str:
    if "le" in context:
        return f"at most {context['le']} ({context['le']:#x})"
    return f"at least {context['ge']} ({context['ge']:#x})"


def _unknown(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    key = str(loc[-1])
    owner = model_at(loc[:-1], model)
    known = keys_of(owner) if owner else []
    hint = suggest(key, known)
    return f"unknown key {key!r}{hint or '; known here: ' + ', '.join(known)}"


def _example(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    owner = model_at(loc[:-1], model)
    field = _fields(owner).get(str(loc[-1])) if owner else None
    described = f" ({field.description})" if field is not None and field.description else ""
    example = _EXAMPLES.get(str(loc[-1]))
    return described + (f"; write `{loc[-1]}: {example}`" if example else "")


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys of a model as users write them."""
    return list(_fields(model))


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def model_at(loc: tuple[int | str, ...], model: type[BaseModel]) -> type[BaseModel] | None:
    """The model that describes the mapping at `loc`."""
    for step in loc:
        if isinstance(step, int):
            continue
        field = _fields(model).get(step)
        inner = _model_in(field.annotation) if field is not None else None
        # A key of a dict (a path below `files`) stays in the model of its values.
        model = inner or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if found is not None:
            return found
    return None
