"""`fakedev shell`: a terminal, a prompt that names the machine, the shell's own end."""

import os
import shutil

import pytest
from support import Host, need_sandbox, on_terminal, wait_for


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_prompt_names_the_machine(host: Host, shell: str) -> None:
    need_sandbox()
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed (package {shell})")
    env = {**host.env, "SHELL": path, "HOME": str(host.runtime), "TERM": "dumb"}
    with on_terminal(host.command("shell", "-q", "fd-9000"), env) as (process, main):
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
