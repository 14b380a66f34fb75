"""The command line. Each command imports what it needs when it runs: `fakedev run` must start fast."""

import gc
import re
import signal
import sys


def main() -> None:
    """Entry point of the console script. Errors are one message on stderr: exit 2 for bad input."""
    # Until a command says otherwise Ctrl-C just ends us, also in the middle of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1:2] in (["run"], ["shell"]):
        gc.disable()  # until the machine is there: little of what is made until then is garbage
        from fakedev.cli.tools import app  # noqa: PLC0415 - start-up time
    else:
        from fakedev.cli.app import app  # noqa: PLC0415 - start-up time
    from fakedev.model.errors import ControlError, FakedevError, HostError  # noqa: PLC0415

    try:
        app()
    except FakedevError as error:
        prefix = "" if re.match(r"\S*:\d+:\d+: ", str(error)) else "fakedev: "
        print(f"{prefix}{error}", file=sys.stderr)  # noqa: T201
        sys.exit(1 if isinstance(error, (HostError, ControlError)) else 2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
