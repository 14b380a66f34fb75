"""The control protocol: one JSON object a line, in both directions.

Request:  `{"id": 1, "verb": "claim", "args": {"range": "d8100000-d810ffff", "name": "fpga"}}`
Answer:   `{"id": 1, "ok": true, "result": {...}}` or
          `{"id": 1, "ok": false, "error": {"message": "...", "errno": "EBUSY"}}`

`id` is optional and comes back as it was. A connection takes any number of requests, answered in
order. Whatever is not a request gets an error answer; the connection and the machine live on.
"""

import errno
import json
from typing import Any

from fakedev.model.errors import ControlError, FakedevError

LINE_LIMIT = 64 << 20


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> tuple[Any, str, dict[str, Any]]:
    """Split a request into id, verb and arguments. Raises ControlError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("not a JSON line", errno=errno.EINVAL) from None
    if not isinstance(message, dict):
        raise ControlError("a request is a JSON object", errno=errno.EINVAL)
    unknown = sorted(set(message) - {"id", "verb", "args"})
    if unknown:
        raise ControlError(f"unknown member {unknown[0]!r}: id, verb, args", errno=errno.EINVAL)
    verb, args = message.get("verb"), message.get("args", {})
    if not isinstance(verb, str):
        raise ControlError("a request needs a verb", errno=errno.EINVAL)
    if not isinstance(args, dict):
        raise ControlError("args is a JSON object", errno=errno.EINVAL)
    return message.get("id"), verb, args


def request_id(line: bytes) -> Any:
    """The id of a request that could not be decoded, where there is one."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message.get("id") if isinstance(message, dict) else None


def success(number: Any, result: Any) -> dict[str, Any]:
    """The answer to a verb that was carried out."""
    return {"id": number, "ok": True, "result": result}


def failure(number: Any, error: FakedevError) -> dict[str, Any]:
    """The answer to a verb that was refused."""
    code = getattr(error, "errno", 0)
    name = errno.errorcode.get(code) if code else None
    return {"id": number, "ok": False, "error": {"message": str(error), "errno": name}}
