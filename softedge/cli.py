"""The ``softedge`` command: put together from ``commands/``, and how it ends."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

import typer
import typer.core

from softedge import __version__, registry
from softedge.commands import data, devices, evaluation, files, hints, labelling, reports, training


class Commands(typer.core.TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """``litert-setup``, as it was once called, is ``setup litert``."""
        name, sign, verb = args[0].rpartition("-")
        if sign and verb == "setup":
            args = [verb, name, *args[1:]]
        if args[0] in hints.ELSEWHERE and args[0] not in self.commands:
            ctx.fail(f"No such command '{args[0]}'. Instead: {hints.ELSEWHERE[args[0]]}")
        found, command, rest = super().resolve_command(ctx, args)
        return found, command, [_as_named(command, word) for word in rest]


def _as_named(command: Any, word: str) -> str:
    """``--device`` where the command's option is ``--devices``, and the other way round: both are understood."""
    option, sign, value = word.partition("=")
    other = {"--device": "--devices", "--devices": "--device"}.get(option)
    known = {name for parameter in command.params for name in parameter.opts} if other else set()
    return f"{other}{sign}{value}" if other in known and option not in known else word


app = typer.Typer(
    name="softedge",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From unlabelled images to a checked and timed classifier for phones and IoT boards.",
)
for part in (training, evaluation, files, devices, reports, data, labelling):
    app.add_typer(part.app)  # its commands stand beside the others
for plugin in registry.plugins():
    app.add_typer(plugin.commands())
app.add_typer(data.recipes, name="recipes")


TRACEBACK = "--traceback"


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"softedge {__version__}")
        raise typer.Exit


@app.callback()
def softedge(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_say_version)
    ] = False,
    traceback: Annotated[
        bool, typer.Option(TRACEBACK, help="Print the traceback of an unexpected error; works behind any command.")
    ] = False,
) -> None:
    """From unlabelled images to a checked and timed classifier for phones and IoT boards."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command; the one place where errors become a line and an exit code."""
    from softedge.errors import BUG, Terminated, bug_line, exit_code_and_line, terminating
    from softedge.machine import names, threads

    threads.prepare()
    given, line = sys.argv[1:] if arguments is None else arguments, ""
    arguments = [word for word in given if word != TRACEBACK]
    try:
        names.refuse_unnamable(arguments)
        with terminating():
            code = app(arguments, standalone_mode=False)
        if code == 130:  # how typer passes Ctrl-C on: no command returns a number
            code, line = exit_code_and_line(KeyboardInterrupt()) or (130, "")
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        code, line = exit_code_and_line(ended.__context__) or (141, "")  # the parser says 1: here, a gate that failed
    except (Exception, Terminated) as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a wrong flag: the parser explains it
            hints.add(error, arguments)
            error.show()
            raise SystemExit(error.exit_code) from None
        answer = exit_code_and_line(KeyboardInterrupt() if isinstance(error, typer.Abort) else error)
        if answer is None and TRACEBACK in given:
            raise
        if answer is None:
            from softedge.files import cache_folder
            from softedge.machine.provenance import command_line

            answer = BUG, bug_line(error, command_line(), cache_folder() / "tracebacks")
        code, line = answer
    with contextlib.suppress(OSError):  # stderr goes to a full disk, or to nobody
        typer.echo(line, err=True, nl=bool(line))
    raise SystemExit(code if isinstance(code, int) else 0)
