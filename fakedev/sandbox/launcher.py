"""Run unmodified tools in a sandbox where the paths of a machine stand at their real places."""

import importlib
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

from fakedev.model.errors import HostError
from fakedev.sandbox import child, process
from fakedev.sandbox.exact.listener import filter_program
from fakedev.sandbox.exact.support import exact_refusal
from fakedev.sandbox.foreground import Foreground
from fakedev.sandbox.host import HostView
from fakedev.sandbox.namespace import inside_ids
from fakedev.sandbox.plan import OPAQUE, Plan, make_plan
from fakedev.sandbox.process import Arguments, Launch, SandboxProcess
from fakedev.sandbox.protocols import Kind, Service
from fakedev.sandbox.runtime import private_directory, runtime_directory


class Sandbox:
    """A place where a machine's files stand at their real paths and everything else is the host's.

    `machine` is a Machine, or a Service that serves one. `as_root`: the tool sees itself as uid 0,
    else as the caller. `control` is the path of the machine's control socket: the tool finds it in
    FAKEDEV_CONTROL, and it is unlinked if this process is killed. `exact`: answer system calls that
    a file system is not asked about (errnos of mmap, character devices); None: where the host can,
    and `without_exact` says why not. `runtime` is a private directory for stages. `opaque` are
    directories whose virtual content replaces the host's as a whole, more than those that the
    service says so of.
    """

    __slots__ = ("_control", "_opaque", "_runtime", "as_root", "filter", "service", "without_exact")

    def __init__(
        self,
        machine: Any,
        *,
        as_root: bool = True,
        exact: bool | None = None,
        control: str | os.PathLike[str] | None = None,
        runtime: Path | None = None,
        opaque: Collection[str] = OPAQUE,
    ) -> None:
        self.service: Service = _service_of(machine)
        self.as_root = as_root
        self.without_exact = "without the exact layer" if exact is False else exact_refusal()
        if exact and self.without_exact:
            raise HostError(f"the exact layer does not work here: {self.without_exact}")
        self.filter = None if self.without_exact else filter_program(users=as_root)
        self._control = None if control is None else os.fspath(control)
        self._runtime = runtime
        self._opaque = frozenset(opaque)

    def plan(self) -> Plan:
        """Return what the next sandbox would mount; `unplaced` is worth a warning."""
        listing = self.service.tree_listing()
        virtual = {path: Kind(entry.kind) for path, entry in listing.items()}
        clone = str(self._directory() / "host-dev")
        opaque = {path for path, entry in listing.items() if entry.opaque}
        merged = {path for path, entry in listing.items() if entry.merge}
        return make_plan(
            virtual, HostView(), clone_at=clone, opaque=self._opaque | opaque, merged=merged
        )

    def popen(self, args: Arguments, **options: Any) -> SandboxProcess:
        """Start `args` in a new sandbox; `options` are those of subprocess.Popen.

        Raises HostError when this host does not allow a sandbox (`fakedev doctor` tells more),
        and OSError as Popen does when the program or `cwd` cannot be used.
        """
        return self._launch(args, options)

    def run(
        self,
        args: Arguments,
        *,
        check: bool = False,
        timeout: float | None = None,
        input: Any = None,  # noqa: A002 - the name that subprocess.run gives it
        capture_output: bool = False,
        **options: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Run `args` to the end, like subprocess.run with the same options and exceptions.

        A timeout kills everything in the sandbox. Processes that the tool left behind get a
        SIGTERM when it ends, and soon a SIGKILL.
        """
        if input is not None:
            if options.get("stdin") is not None:
                raise ValueError("stdin and input arguments may not both be used.")
            options["stdin"] = subprocess.PIPE
        if capture_output:
            if options.get("stdout") is not None or options.get("stderr") is not None:
                raise ValueError("stdout and stderr arguments may not be used with capture_output.")
            options["stdout"] = options["stderr"] = subprocess.PIPE
        started = self._launch(args, options)
        return process.communicate(started, data=input, timeout=timeout, check=check)

    def run_foreground(
        self,
        args: Arguments,
        *,
        ready: Callable[[SandboxProcess], None] | None = None,
        plan: Plan | None = None,
        **options: Any,
    ) -> int:
        """Run `args` as the job that this process stands for in its shell; returns its exit status.

        The status is that of subprocess (`-N` for a death by signal N; `exit_like` passes it on),
        or 127 and 126 for a program that was not found or not runnable, as in a shell. TERM and HUP
        are forwarded; INT and QUIT come to the tool from the terminal; when the tool stops this
        process stops too. `ready` is called once the tool runs. Main thread only.
        """
        with Foreground() as foreground:
            try:
                started = self._launch(
                    args,
                    options,
                    plan=plan,
                    foreground=True,
                    default_signals=foreground.overridden,
                )
            except OSError as error:
                return foreground.not_started(error)
            with started:
                if ready is not None:
                    ready(started)
                return foreground.follow(started)

    def _launch(
        self,
        args: Arguments,
        options: dict[str, Any],
        *,
        plan: Plan | None = None,
        foreground: bool = False,
        default_signals: Collection[signal.Signals] = (),
    ) -> SandboxProcess:
        plan = plan or self.plan()
        for shadow in plan.shadows:
            self.service.shadow(shadow.path, shadow.entries, mode=shadow.mode)
        self.service.prepare()
        for _source, place in plan.clones:
            private_directory(Path(place))
        stage = str(private_directory(self._directory() / "stage"))
        here, there = process.open_channel()
        order = child.Order(
            plan=plan,
            stage=stage,
            ids=inside_ids(as_root=self.as_root),
            socket=there,
            launcher=os.getpid(),
            launchers_end=here.fileno(),
            unlink=self._control,
            foreground=foreground,
            default_signals=tuple(default_signals),
            before_exec=options.pop("preexec_fn", None),
            filter=self.filter,
        )
        options["env"] = self._environment(options.get("env"))
        return SandboxProcess(args, Launch(self.service, order, here), **options)

    def _environment(self, given: Mapping[str, str] | None) -> dict[str, str]:
        environment = dict(os.environ if given is None else given)
        # libudev and sd-device refuse a /sys that is not sysfs, unless told not to look.
        environment["SYSTEMD_DEVICE_VERIFY_SYSFS"] = "0"
        if self._control is not None:
            environment["FAKEDEV_CONTROL"] = self._control
        return environment

    def _directory(self) -> Path:
        return runtime_directory() if self._runtime is None else private_directory(self._runtime)


def _service_of(machine: Any) -> Service:
    if hasattr(machine, "attach") and hasattr(machine, "tree_listing"):
        return cast("Service", machine)
    # Late, so that a sandbox around another service does not load the server.
    module = importlib.import_module("fakedev.fuse.service")
    return cast("Service", module.service_of(machine))
