"""The JSON schema accepts what fakedev accepts: a small checker runs it over the bundled profiles."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakedev.profiles import bundled_profiles, json_schema

SCHEMA = json_schema()
TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
    "boolean": bool, "null": type(None),
}  # fmt: skip
# everything that the checker understands, or that only describes
KEYWORDS = {
    "$ref", "$defs", "$schema", "anyOf", "type", "enum", "const", "pattern", "minimum", "maximum",
    "minLength", "maxItems", "maxProperties", "properties", "required", "additionalProperties", "propertyNames",
    "items", "title", "description", "examples", "default",
}  # fmt: skip


def problems(value: Any, schema: Any, path: str = "") -> list[str]:
    """What of `value` the schema refuses; a subset of JSON schema, checked by its own test below."""
    if schema is True or schema is False:
        return [] if schema else [f"{path}: not allowed"]
    if "$ref" in schema:
        return problems(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)
    found = []
    if "anyOf" in schema:
        tries = [problems(value, option, path) for option in schema["anyOf"]]
        found += min((len(one), one) for one in tries)[1]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: {value!r} is not one of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{path}: {value!r} is not {schema['const']!r}")
    return found + typed(value, schema, path) + members(value, schema, path)


def typed(value: Any, schema: Any, path: str) -> list[str]:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    wrong_bool = isinstance(value, bool) and "boolean" not in kinds
    if kinds and (wrong_bool or not any(isinstance(value, TYPES[kind]) for kind in kinds)):
        return [f"{path}: {value!r} is not of type {kinds}"]
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return [f"{path}: {value!r} does not match {schema['pattern']}"]
    if isinstance(value, int) and value < schema.get("minimum", value):
        return [f"{path}: {value} is too small"]
    return []


def members(value: Any, schema: Any, path: str) -> list[str]:
    found = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += problems(item, schema.get("items", True), f"{path}[{index}]")
    if isinstance(value, dict):
        found += [f"{path}: no {key!r}" for key in schema.get("required", ()) if key not in value]
        for name, item in value.items():
            key = str(name)  # the keys of JSON are texts: `0:` is one
            known = schema.get("properties", {}).get(key, schema.get("additionalProperties", True))
            found += problems(key, schema.get("propertyNames", True), f"{path}.{key}")
            found += problems(item, known, f"{path}.{key}")
    return found


def walk(schema: Any) -> Any:
    if isinstance(schema, dict):
        yield schema
        for key, member in schema.items():
            if key in {"properties", "$defs"}:
                for item in member.values():
                    yield from walk(item)
            elif key == "anyOf":
                for item in member:
                    yield from walk(item)
            elif key in {"items", "additionalProperties", "propertyNames"}:
                yield from walk(member)


def test_the_checker_knows_every_keyword_that_is_used() -> None:
    used = {key for schema in walk(SCHEMA) for key in schema}
    assert used <= KEYWORDS


def test_it_is_json_and_every_reference_leads_somewhere() -> None:
    text = json.dumps(SCHEMA)
    assert len(text) < 200_000
    for name in re.findall(r'"#/\$defs/(\w+)"', text):
        assert name in SCHEMA["$defs"]
    for pattern in {schema["pattern"] for schema in walk(SCHEMA) if "pattern" in schema}:
        re.compile(pattern)


def documents() -> list[Path]:
    top = [Path(path) for _, path, _ in bundled_profiles()]
    return top + [extra for path in top for extra in path.with_suffix("").glob("*.yaml")]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_bundled_profiles_are_valid(path: Path) -> None:
    assert problems(yaml.safe_load(path.read_text()), SCHEMA) == []


WRONG: dict[str, Any] = {
    "no version": {},
    "version": {"fakedev": 2},
    "key": {"fakedev": 1, "kernle": {}},
    "range": {"fakedev": 1, "memory": {"segments": [{"range": "zz"}]}},
    "number": {"fakedev": 1, "memory": {"undecoded": "1e0"}},
    "flag": {"fakedev": 1, "iomem": [{"range": "1-2", "name": "a", "flags": ["bsy"]}]},
    "line": {"fakedev": 1, "iomem": ["10-20 x"]},
    "path": {"fakedev": 1, "files": {"/etc/passwd": "x"}},
    "structure": {"fakedev": 1, "firmware": {"smbios": {"structures": [{"type": "bios"}]}}},
    "field": {
        "fakedev": 1,
        "firmware": {"smbios": {"structures": [{"type": "chassis", "vendr": "x"}]}},
    },
    "table": {"fakedev": 1, "firmware": {"acpi": {"tables": [{"signature": "APIC", "x": 1}]}}},
    "function": {"fakedev": 1, "pci": {"functions": {"00:1f": {"id": "1:2", "class": "060000"}}}},
    "capability": {"fakedev": 1, "pci": {"functions": {"00:1f.0": {
        "id": "1:2", "class": "060000", "capabilities": [{"pmm": {}}]}}}},
    "BAR": {"fakedev": 1, "pci": {"functions": {"00:1f.0": {
        "id": "1:2", "class": "060000", "bars": {6: {"mem32": 4096}}}}}},
    "driver": {"fakedev": 1, "pci": {"drivers": {"e1000": {"ids": ["8086:1g"]}}}},
}  # fmt: skip


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_mistakes_are_seen(value: Any) -> None:
    assert problems(value, SCHEMA)


def test_descriptions() -> None:
    for name in (
        "Kernel",
        "Memory",
        "Segment",
        "Content",
        "E820Entry",
        "Smbios",
        "Acpi",
        "FileEntry",
        "Pci",
        "PciFunction",
        "PciDriver",
        "Bar",
        "Rom",
        "Bridge",
        "Register",
    ):
        for key, member in SCHEMA["$defs"][name]["properties"].items():
            assert member.get("description"), f"{name}.{key}"
