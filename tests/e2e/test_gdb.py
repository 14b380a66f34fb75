"""A debugger that watches a program lose its mapping."""

import re
import shlex
from pathlib import Path

from support import Host, Running, compiled, need, need_sandbox

HERE = Path(__file__).parent


def test_gdb_shows_the_sigbus_and_cannot_read_the_page(host: Host, folder: Path) -> None:
    need_sandbox()
    need("gdb", "gdb")
    watched = compiled(HERE / "watched.c", folder)
    # The address is known only when the program runs: gdb takes it from a file.
    script = rf"""
        {shlex.quote(str(watched))} 0xd0000000 > "$XDG_RUNTIME_DIR/where" & pid=$!
        until [ -s "$XDG_RUNTIME_DIR/where" ]; do :; done
        read page < "$XDG_RUNTIME_DIR/where"
        stdbuf -oL gdb -nx -q -batch -p $pid -ex 'set confirm off' \
            -ex "x/1xw $page+0x40" \
            -ex 'shell echo attached; read line' \
            -ex continue \
            -ex 'set $at = (long)$_siginfo._sifields._sigfault.si_addr' \
            -ex "printf \"code=%d offset=%#x\n\", \$_siginfo.si_code, \$at - $page" \
            -ex "x/1xw $page+0x40" -ex kill 2>&1
        rm "$XDG_RUNTIME_DIR/where"; echo end"""
    with Running(host, str(HERE / "strict.yaml"), "sh", "-c", script) as running:
        lines = list(iter(running.receive, "attached\n"))
        # The program is stopped; the debugger reads the device's word through ptrace.
        assert re.search(r"0x[0-9a-f]+:\s+0xd0000040$", lines[-1].rstrip()), lines
        done = running.ctl("claim", "d0000000-d0000fff", "--name", "driver")
        assert (done.returncode, done.stderr) == (0, "")
        running.send("\n")
        after = "".join(iter(running.receive, "end\n"))
    assert "received signal SIGBUS, Bus error." in after
    assert "code=2 offset=0x40\n" in after
    assert "Cannot access memory at address 0x" in after
