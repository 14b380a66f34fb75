"""`fakedev shell`: a terminal, a prompt that names the machine, the shell's own end."""

import os
import pty
import shutil
import subprocess

import pytest
from support import Host, need_sandbox, wait_for


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_prompt_names_the_machine(host: Host, shell: str) -> None:
    need_sandbox()
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed (package {shell})")
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        host.command("shell", "-q", "fd-9000"),
        env={**host.env, "SHELL": path, "HOME": str(host.runtime), "TERM": "dumb"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # it becomes ours
    )
    os.close(terminal)
    seen = bytearray()

    def shows(text: bytes) -> bool:
        if text not in seen:
            seen.extend(os.read(main, 4096))
        return text in seen

    wait_for(lambda: shows(b"[fd-9000]"), "the prompt names the machine")
    os.write(main, b"head -1 /proc/iomem; echo in $FAKEDEV_MACHINE\n")
    wait_for(lambda: shows(b"00000000-00000fff : Reserved"), "the machine's own iomem")
    wait_for(lambda: shows(b"in fd-9000"), "the machine's name")
    os.write(main, b"exit 5\n")
    assert process.wait(20) == 5
    os.close(main)
