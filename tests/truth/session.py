"""A machine with a caller in it, driven from outside through the control socket."""

import os
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from support import TIMEOUT, Host, compiled, wait_for

from truth.caller import Caller

SOURCE = Path(__file__).parent / "caller.c"


class Session:
    """`fakedev run PROFILE -- caller`, as root of the machine or as its ordinary user.

    With `shell`, a script runs instead, in which "$0" is the caller.
    """

    def __init__(
        self,
        host: Host,
        folder: Path,
        profile: str,
        *,
        role: str = "root",
        settings: Sequence[str] = (),
        shell: str = "",
    ) -> None:
        self.host, self.name = host, f"truth-{role}-{os.getpid()}"
        options = [f"--as={role}", *(f"--set={setting}" for setting in settings)]
        caller = str(compiled(SOURCE, folder))
        tool = ["sh", "-c", shell, caller] if shell else [caller]
        self._tool = subprocess.Popen(
            host.command("run", "-q", f"--name={self.name}", *options, profile, "--", *tool),
            env=host.env,
            cwd=host.runtime,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.caller = Caller(self._send, self._receive)

    def _send(self, line: str) -> None:
        assert self._tool.stdin is not None
        self._tool.stdin.write(line)
        self._tool.stdin.flush()

    def _receive(self) -> str:
        assert self._tool.stdout is not None
        assert select.select([self._tool.stdout], [], [], TIMEOUT)[0], "no answer: a hang"
        return self._tool.stdout.readline()

    @property
    def server(self) -> int:
        """The process that serves the machine."""
        words = self.ctl("state").stdout.split()
        return int(words[words.index("pid") + 1])

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`fakedev ctl WORDS...` about this machine."""
        socket = self.host.runtime / "fakedev" / f"{self.name}.sock"
        wait_for(socket.exists, "the control socket is there")
        return self.host("ctl", "--machine", self.name, *words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        assert self._tool.stdin is not None
        assert self._tool.stdout is not None
        if kind is not None:
            self._tool.kill()
        self._tool.stdin.close()
        try:
            self._tool.wait(TIMEOUT)
        finally:
            self._tool.kill()
            self._tool.wait()
            self._tool.stdout.close()
