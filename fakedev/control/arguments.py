"""The arguments of one control request: each is taken by name and type, and none may be left."""

import errno
from typing import Any

from fakedev.model.errors import ControlError
from fakedev.model.ranges import Range, parse_range

LONGEST_WAIT = 10.0**7
_MISSING: Any = object()


class Arguments:
    """The arguments of one request; what is not asked for is an error."""

    def __init__(self, verb: str, values: dict[str, Any]) -> None:
        self._verb = verb
        self._values = dict(values)

    def take(self, name: str, kind: type, default: Any = _MISSING) -> Any:
        """The argument `name`, which must be a `kind`. Raises ControlError (EINVAL)."""
        value = self._values.pop(name, default)
        if value is _MISSING:
            raise self.error(f"needs the argument {name!r}")
        if value is not default and (
            not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool)
        ):
            raise self.error(f"{name!r} is not a {kind.__name__}")
        return value

    def seconds(self, name: str) -> float | None:
        """An optional time. Raises ControlError (EINVAL)."""
        value = self._values.pop(name, None)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value <= LONGEST_WAIT):
            raise self.error(f"{name!r} is a number of seconds up to {LONGEST_WAIT:.0f}")
        return None if value is None else float(value)

    def range(self) -> Range:
        """The argument `range`."""
        return parse_range(self.take("range", str))

    def finish(self) -> None:
        """Raise ControlError when arguments are left."""
        if self._values:
            raise self.error(f"has no argument {min(self._values)!r}")

    def error(self, message: str) -> ControlError:
        """An error about the arguments of this verb (EINVAL)."""
        return ControlError(f"{self._verb}: {message}", errno=errno.EINVAL)
