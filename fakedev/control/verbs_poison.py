"""The verbs about memory that fails."""

from typing import Any

from fakedev.control.arguments import Arguments
from fakedev.devices.memory.poison import poison_of
from fakedev.model.machine import Machine
from fakedev.model.ranges import page_round, parse_span


class PoisonVerbs:
    """Pages fail, and are good again. Both answer with the whole pages and how many changed."""

    __slots__ = ()

    machine: Machine

    def do_poison(self, arguments: Arguments) -> dict[str, Any]:
        """The pages of a range (or of an address) give errors from now on; mappings of them die."""
        span = parse_span(arguments.take("range", str))
        arguments.finish()
        pages = poison_of(self.machine).add(span)
        return self._outcome(str(page_round(span)), pages)

    def do_unpoison(self, arguments: Arguments) -> dict[str, Any]:
        """The pages are good again; mappings that died stay dead."""
        span = parse_span(arguments.take("range", str))
        arguments.finish()
        pages = poison_of(self.machine).remove(span)
        return self._outcome(str(page_round(span)), pages)

    def _outcome(self, span: str, pages: int) -> dict[str, Any]:
        corrupted = poison_of(self.machine).corrupted >> 10
        event = self.machine.now
        return {
            "range": span,
            "pages": pages,
            "hardware_corrupted_kb": corrupted,
            "event": event,
        }
