"""The verbs of a running machine: arguments in, plain JSON out. Errors are FakedevError."""

import base64
import binascii
import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fakedev.control.arguments import Arguments
from fakedev.control.explaining import explain, verdict_json
from fakedev.control.verbs_memory import MemoryVerbs
from fakedev.control.verbs_nd import NdVerbs
from fakedev.control.verbs_poison import PoisonVerbs
from fakedev.control.verbs_virtio_mem import VirtioMemVerbs
from fakedev.devices.memory.poison import poison_of
from fakedev.model.effects import EVENT_KINDS, Event
from fakedev.model.errors import ControlError
from fakedev.model.lockdown import lock_kernel_down, lockdown_text
from fakedev.model.machine import Machine
from fakedev.model.ranges import parse_number

PEEK_LIMIT = 16 << 20
NAME_LIMIT = 255


def event_json(event: Event) -> dict[str, Any]:
    """An event as the log shows it."""
    shown: dict[str, Any] = {"number": event.number, "kind": event.kind, "message": event.message}
    shown["range"] = str(event.span) if event.span else None
    if event.mappers:
        shown["mappers"] = [
            {"pid": m.pid, "comm": m.comm, "range": str(m.span)} for m in event.mappers
        ]
    return shown


@dataclass(slots=True)
class Verbs(NdVerbs, VirtioMemVerbs, PoisonVerbs, MemoryVerbs):
    """The verbs of one machine. `about` is what `state` says beside the machine's own."""

    machine: Machine
    about: dict[str, Any] = field(default_factory=dict)
    mounts: Callable[[], int] = lambda: 0

    def __call__(self, verb: str, values: dict[str, Any], gone: Callable[[], bool]) -> Any:
        """Carry out one verb; `gone` tells whether who asked has left."""
        method = getattr(self, f"do_{verb.replace('-', '_')}", None)
        if method is None:
            known = ", ".join(sorted(name[3:] for name in dir(self) if name.startswith("do_")))
            raise ControlError(f"unknown verb {verb!r}: {known}", errno=errno.ENOSYS)
        arguments = Arguments(verb, values)
        if verb == "wait":
            return method(arguments, gone)
        return method(arguments)

    def do_state(self, arguments: Arguments) -> dict[str, Any]:
        """What the machine is and holds."""
        arguments.finish()
        machine = self.machine
        rules = machine.rules
        return {
            **self.about,
            "machine": machine.name,
            "kernel": {
                "version": rules.version,
                "arch": rules.arch,
                "strict_devmem": rules.strict_devmem,
                "io_strict_devmem": rules.io_strict_devmem,
                "cmdline": rules.cmdline,
                "lockdown": rules.lockdown_level,
                "claim_policy": rules.claim_policy,
            },
            "high_memory": f"{machine.high_memory:#x}",
            "claims": [
                {"range": f"{r.start:08x}-{r.end:08x}", "name": r.name, "event": r.since}
                for r in machine.claims
            ],
            "poison": poison_of(machine).state(),
            "events": machine.now,
            "mounts": self.mounts(),
        }

    def do_iomem(self, arguments: Arguments) -> dict[str, str]:
        """`/proc/iomem`."""
        privileged = arguments.take("privileged", bool, default=True)
        arguments.finish()
        return {"text": self.machine.iomem(privileged=privileged)}

    def do_claim(self, arguments: Arguments) -> dict[str, Any]:
        """A driver claims a range."""
        span = arguments.range()
        name = arguments.take("name", str)
        exclusive = arguments.take("exclusive", bool, default=False)
        arguments.finish()
        if not name or not name.isprintable() or len(name) > NAME_LIMIT:
            message = f"claim: a name is 1 to {NAME_LIMIT} printable characters"
            raise ControlError(message, errno=errno.EINVAL)
        resource = self.machine.claim(span, name, exclusive=exclusive)
        protected = self.machine.policy.should_revoke(resource) is not None
        denies = self.machine.rules.claim_policy == "deny-claim"
        claimed = {
            "range": str(span),
            "name": name,
            "exclusive": exclusive,
            "event": resource.since,
        }
        return {**claimed, "revoked": protected and not denies, "spared": not protected}

    def do_release(self, arguments: Arguments) -> dict[str, Any]:
        """A driver releases what it claimed."""
        span = arguments.range()
        arguments.finish()
        self.machine.release(span)
        return {"range": str(span)}

    def do_peek(self, arguments: Arguments) -> dict[str, Any]:
        """Bytes of a range, base64."""
        span = arguments.range()
        arguments.finish()
        if span.size > PEEK_LIMIT:
            raise ControlError(f"peek: at most {PEEK_LIMIT >> 20} MiB at a time", errno=errno.E2BIG)
        data = self.machine.peek(span)
        return {"start": f"{span.start:#x}", "base64": base64.b64encode(data).decode()}

    def do_poke(self, arguments: Arguments) -> dict[str, Any]:
        """Put bytes (base64) at an address."""
        address = parse_number(arguments.take("address", str))
        text = arguments.take("base64", str)
        arguments.finish()
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ControlError("poke: not base64", errno=errno.EINVAL) from None
        if not data or address + len(data) > 1 << 64:
            raise ControlError(
                "poke: nothing to put, or it ends beyond 64 bits", errno=errno.EINVAL
            )
        self.machine.poke(address, data)
        return {"address": f"{address:#x}", "length": len(data)}

    def do_log(self, arguments: Arguments) -> dict[str, Any]:
        """Events after number `since`."""
        since = arguments.take("since", int, default=0)
        arguments.finish()
        events = [event_json(e) for e in tuple(self.machine.events) if e.number > since]
        return {"events": events}

    def do_reset(self, arguments: Arguments) -> dict[str, Any]:
        """Memory and claims as at boot."""
        arguments.finish()
        self.machine.reset()
        return {"event": self.machine.now}

    def do_lockdown(self, arguments: Arguments) -> dict[str, Any]:
        """The lockdown level, raised before if `level` says so."""
        level = arguments.take("level", str, default=None)
        arguments.finish()
        if level is not None:
            lock_kernel_down(self.machine, level, "the control socket", "fakedev ctl")
        level = self.machine.rules.lockdown_level
        return {"level": level, "text": lockdown_text(level), "event": self.machine.now}

    def do_explain(self, arguments: Arguments) -> dict[str, Any]:
        """The verdict on an operation on a range, or on the file `path`."""
        path = arguments.take("path", str, default=None)
        text = str(arguments.range()) if path is None else path
        operation = arguments.take("op", str, default="read")
        arguments.finish()
        verdict = verdict_json(explain(self.machine, operation, text))
        return {**verdict, "lockdown": self.machine.rules.lockdown_level}

    def do_wait(self, arguments: Arguments, gone: Callable[[], bool]) -> dict[str, Any]:
        """The first event of a kind after `since` (default: from now on). ETIMEDOUT after `timeout`."""
        kind = arguments.take("event", str)
        since = arguments.take("since", int, default=self.machine.now)
        timeout = arguments.seconds("timeout")
        arguments.finish()
        if kind not in EVENT_KINDS:
            known = ", ".join(EVENT_KINDS)
            raise ControlError(f"wait: there is no event {kind!r}: {known}", errno=errno.EINVAL)
        return event_json(_wait(self.machine, kind, since, timeout, gone))


def _wait(
    machine: Machine, kind: str, since: int, timeout: float | None, gone: Callable[[], bool]
) -> Event:
    found: list[Event] = []
    arrived = threading.Event()

    def watch(event: Event) -> None:
        if event.kind == kind and event.number > since and not found:
            found.append(event)
            arrived.set()

    machine.watchers.append(watch)
    try:
        for event in tuple(machine.events):
            watch(event)
        _poll(arrived, timeout, gone)
    finally:
        machine.watchers.remove(watch)
    if not found:
        raise ControlError(f"wait: no {kind!r} event came", errno=errno.ETIMEDOUT)
    return found[0]


def _poll(arrived: threading.Event, timeout: float | None, gone: Callable[[], bool]) -> None:
    """Until it arrived, the time is over, or who asked has left."""
    step, waited = 0.2, 0.0
    while timeout is None or waited < timeout:
        if arrived.wait(step if timeout is None else min(step, timeout - waited)) or gone():
            return
        waited += step
