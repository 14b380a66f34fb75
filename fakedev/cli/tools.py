"""`fakedev run` and `fakedev shell` alone: the rest of the command line costs them time to import."""

import typer
from typer.core import TyperCommand

from fakedev.cli import run


class CommandRunner(TyperCommand):
    """A command whose arguments end with another command line, with or without `--` before it.

    Options may stand before and after PROFILE; from the tool's name on, nothing is ours.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put `--` before the tool's command line, wherever it starts."""
        valued = {name for p in self.params for name in p.opts if not getattr(p, "is_flag", True)}
        at, positionals = 0, 0
        while at < len(args) and args[at] != "--":
            if not args[at].startswith("-"):
                positionals += 1
                if positionals == 2:  # PROFILE and the tool
                    break
            elif args[at] in valued:
                at += 1
            at += 1
        rest = args[at + 1 :] if args[at : at + 1] == ["--"] else args[at:]
        return super().parse_args(ctx, [*args[:at], "--", *rest])


app = typer.Typer(
    name="fakedev",
    help="A physical machine made of files: unmodified tools read a simulated physical memory, without root.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("run", cls=CommandRunner)(run.run)
app.command("shell")(run.shell)


@app.callback(invoke_without_command=True)
def _options(
    *, version: bool = typer.Option(False, "--version", help="Print the version.")
) -> None:
    if version:
        from importlib.metadata import version as installed  # noqa: PLC0415 - slow to import

        typer.echo(installed("fakedev"))
        raise typer.Exit
