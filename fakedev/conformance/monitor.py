"""The monitor of the machine: a terminal that understands the commands of QEMU's that the probe sends."""

import contextlib
import os
import pty
import re
import threading
import tty
from collections.abc import Callable
from typing import Any, Self

from fakedev.conformance.memory_devices import memory_devices
from fakedev.control.verbs import Verbs
from fakedev.model.errors import FakedevError

PROMPT = "(qemu) "
_SIZE = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
Call = Callable[..., Any]


class Monitor:
    """Serves a terminal, whose name is `path`, while the `with` block runs.

    Every command is echoed, as the line editor of QEMU does, answered, and followed by a prompt.
    """

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._commands: list[tuple[re.Pattern[str], Call]] = [
            (re.compile(r"info memory-devices"), lambda: memory_devices(verbs.machine)),
            (re.compile(r"info .*"), lambda: ""),
            (re.compile(r"object_add memory-backend-ram,.*"), lambda: ""),
            (re.compile(r"device_add pc-dimm,id=(\w+),.*"), self._plug_dimm),
            (re.compile(r"device_add \w+,id=(\w+),bus=(\w+)"), self._plug),
            (re.compile(r"device_del (dimm\w*)"), self._unplug_dimm),
            (re.compile(r"device_del (\w+)"), self._unplug),
            (
                re.compile(r"qom-set /machine/peripheral/(\w+) requested-size (\d+)([KMGT]?)"),
                self._request,
            ),
        ]

    def __enter__(self) -> Self:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._serve, name="fakedev-monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The last slave end: the thread reads EIO.
        os.close(self._slave)
        self._thread.join()
        os.close(self._master)

    def _serve(self) -> None:
        pending = b""
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 4096):
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    answer = self.answer(line.decode(errors="replace").strip())
                    self._write(f"{line.decode(errors='replace')}\r\n{answer}{PROMPT}".encode())

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data) :]

    def answer(self, command: str) -> str:
        """Do one command; what QEMU would print."""
        for pattern, action in self._commands:
            match = pattern.fullmatch(command)
            if match is not None:
                try:
                    return action(*match.groups()) or ""
                except FakedevError as error:
                    return f"Error: {error}\r\n"
        return f"unknown command: '{command.partition(' ')[0]}'\r\n"

    def _call(self, verb: str, **values: Any) -> Any:
        return self._verbs(verb, values, lambda: False)

    def _plug_dimm(self, name: str) -> None:
        self._call("plug-dimm", slot=name)

    def _unplug_dimm(self, name: str) -> None:
        self._call("unplug-dimm", slot=name)

    def _request(self, name: str, number: str, unit: str) -> None:
        self._call("virtio-mem-request", name=name, size=int(number) * _SIZE[unit])

    def _plug(self, name: str, port: str) -> None:
        """A card is put into the slot behind a port, whose attention button is pressed."""
        self._call("slot-power", slot=self._slot(), power="on")

    def _unplug(self, name: str) -> None:
        """The attention button of the slot: the kernel lets the card go and switches the slot off."""
        self._call("slot-power", slot=self._slot(), power="off")

    def _slot(self) -> str:
        """The one slot of the machine that cards come and go in."""
        bus = self._verbs.machine.pci
        return next((slot.name for slot in bus.slots.values() if slot.hotplug), "") if bus else ""
