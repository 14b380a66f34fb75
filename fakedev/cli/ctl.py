"""`fakedev ctl` and `fakedev ps`: talk to running machines."""

import base64
import sys
import time
from typing import Annotated, Any

import typer

from fakedev.cli import ctl_memory, ctl_nd, ctl_pci, ctl_poison, ctl_virtio_mem, options
from fakedev.cli.calls import call, choose, connect
from fakedev.cli.text import hex_dump, parse_bytes, under_lockdown
from fakedev.control.client import states
from fakedev.model.effects import EVENT_KINDS
from fakedev.model.ranges import parse_span

app = typer.Typer(
    help="Talk to a running machine. RANGE is ADDR+LEN (0xd8100000+64K) or START-END as /proc/iomem prints it; "
    "BDF is a PCI function, 01:00.0 or 0000:01:00.0.",
    no_args_is_help=True,
)
RangeArgument = Annotated[str, typer.Argument(metavar="RANGE", help="ADDR+LEN or START-END.")]


@app.callback()
def _options(machine: options.Machine = None) -> None:
    choose(machine)


def ps(*, json: options.Json = False) -> None:
    """List the machines that are running."""
    found = list(states(options.directory()))
    if json:
        options.print_json(found)
        return
    typer.echo(f"{'NAME':16} {'PROFILE':12} {'PID':>8} {'KERNEL':8} COMMAND")
    for state in found:
        if state.get("stopped"):
            typer.echo(f"{state['name']:16} (stopped)")
            continue
        command = " ".join(state.get("command", []))
        version = state["kernel"]["version"]
        typer.echo(
            f"{state['name']:16} {state['machine']:12} {state.get('pid', 0):8} {version:8} {command}"
        )


@app.command()
def state(*, json: options.Json = False) -> None:
    """What the machine is, what is claimed, how many events there were."""
    found = call("state")
    if json:
        options.print_json(found)
        return
    for name in ("machine", "profile", "pid", "high_memory", "events", "mounts"):
        if name in found:
            typer.echo(f"{name:12} {found[name]}")
    kernel = found["kernel"]
    typer.echo(f"{'kernel':12} " + ", ".join(f"{k}={v}" for k, v in kernel.items() if v != ""))
    for claim in found["claims"]:
        typer.echo(f"{'claim':12} {claim['range']} : {claim['name']} (event {claim['event']})")
    for failed in found["poison"]["pages"]:
        typer.echo(f"{'poison':12} {failed['range']} {failed['kind']}")


@app.command()
def iomem(
    *,
    user: Annotated[
        bool, typer.Option("--user", help="As an opener without CAP_SYS_ADMIN sees it.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print /proc/iomem."""
    found = call("iomem", privileged=not user)
    options.print_json(found) if json else typer.echo(found["text"], nl=False)


@app.command()
def claim(
    span: RangeArgument,
    *,
    name: Annotated[
        str, typer.Option("--name", help="What the driver calls its claim.")
    ] = "driver",
    exclusive: Annotated[bool, typer.Option("--exclusive", help="IORESOURCE_EXCLUSIVE.")] = False,
    json: options.Json = False,
) -> None:
    """Claim a range as a driver does; mappings of it die where the kernel revokes."""
    found = call("claim", range=span, name=name, exclusive=exclusive)
    if json:
        options.print_json(found)
        return
    typer.echo(f"{found['range']} : {found['name']}")
    if found["spared"]:
        options.note("mappings live on: this kernel does not revoke this range (fakedev ctl state)")


@app.command()
def release(span: RangeArgument, *, json: options.Json = False) -> None:
    """Release a claim; new accesses are allowed again."""
    found = call("release", range=span)
    options.print_json(found) if json else typer.echo(f"{found['range']} released")


@app.command()
def peek(
    span: RangeArgument,
    *,
    raw: Annotated[bool, typer.Option("--raw", help="The bytes themselves.")] = False,
    json: options.Json = False,
) -> None:
    """Print bytes of physical memory, whoever owns them."""
    found = call("peek", range=span)
    data = base64.b64decode(found["base64"])
    if json:
        options.print_json({"start": found["start"], "hex": data.hex()})
    elif raw:
        sys.stdout.buffer.write(data)
    else:
        typer.echo(hex_dump(int(found["start"], 0), data))


@app.command()
def poke(
    address: Annotated[str, typer.Argument(metavar="ADDR")],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="BYTES",
            help="Hex bytes in memory order, or u8:, u16:, u32:, u64: and a number, or text:WORDS.",
        ),
    ],
    *,
    json: options.Json = False,
) -> None:
    """Put bytes into physical memory, as a device would."""
    encoded = base64.b64encode(parse_bytes(data)).decode()
    found = call("poke", address=address, base64=encoded)
    options.print_json(found) if json else typer.echo(
        f"{found['length']} bytes at {found['address']}"
    )


@app.command()
def log(
    *,
    since: Annotated[int, typer.Option(help="Only events after this number.")] = 0,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events come.")] = False,
    json: options.Json = False,
) -> None:
    """Print what happened: claims, revokes, refused accesses and by whom."""
    with connect() as client:
        while True:
            events = client.call("log", since=since)["events"]
            if json and not follow:
                options.print_json(events)
            for event in events:
                since = event["number"]
                if not json:
                    _show(event)
                elif follow:
                    options.print_json(event)
            if not follow:
                return
            time.sleep(0.2)


def _show(event: dict[str, Any]) -> None:
    """One event, and below it the processes that lost a mapping."""
    typer.echo(f"{event['number']:6} {event['kind']:8} {event['message']}")
    for mapper in event.get("mappers", ()):
        typer.echo(f"{'':15} mapped by {mapper['comm']}[{mapper['pid']}]: {mapper['range']}")


@app.command()
def reset(*, json: options.Json = False) -> None:
    """Put everything back as it was at boot: memory, claims, devices."""
    found = call("reset")
    options.print_json(found) if json else typer.echo(f"reset (event {found['event']})")


@app.command()
def wait(
    event: Annotated[str, typer.Argument(help=f"One of {', '.join(EVENT_KINDS)}.")],
    *,
    since: Annotated[
        int | None, typer.Option(help="Events after this number count; default: from now on.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.")] = None,
    json: options.Json = False,
) -> None:
    """Wait until an event of a kind happens."""
    found = call("wait", event=event, since=since, timeout=timeout)
    options.print_json(found) if json else typer.echo(found["message"])


@app.command()
def explain(
    span: Annotated[
        str, typer.Argument(metavar="RANGE", help="ADDR, a range, or the path of a resourceN.")
    ],
    *,
    op: Annotated[str, typer.Option("--op", help="read, write or mmap.")] = "read",
    json: options.Json = False,
) -> None:
    """The verdict on an access, as the machine is now."""
    path = span if span.startswith("/") else None
    found = call("explain", range=None if path else str(parse_span(span)), path=path, op=op)
    if json:
        options.print_json(found)
        return
    typer.echo(f"{op}: {'allowed' if found['allowed'] else found['errno']}: {found['rule']}")
    if path is None and found["lockdown"] != "none":
        typer.echo(under_lockdown(found["lockdown"]))


@app.command()
def lockdown(
    level: Annotated[
        str | None,
        typer.Argument(metavar="[integrity|confidentiality]", help="The level to raise to."),
    ] = None,
    *,
    json: options.Json = False,
) -> None:
    """Raise kernel lockdown, or print the level. What is open or mapped keeps what the kernel lets it keep."""
    found = call("lockdown", level=level)
    options.print_json(found) if json else typer.echo(found["text"])


ctl_pci.add_to(app)
ctl_memory.add_to(app)
ctl_nd.add_to(app)
ctl_virtio_mem.add_to(app)
ctl_poison.add_to(app)
