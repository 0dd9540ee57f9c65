"""The entry point: chooses the command, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from copy import copy
from typing import Annotated, Any

import typer

from model_analyzer import __version__
from model_analyzer.errors import AnalyzerError
from model_analyzer.interrupt import interruptible

app = typer.Typer(
    name="model-analyzer",
    help="Measure models on NVIDIA Triton Inference Server at every batch size and load.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: rich alone would take a third of the time that --help has.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The original tool's command lines work, too: model-analyzer -m MODELS --model-folder DIR -b 1,4 -c 1,8 -e DIR --export",
)
ROOT_FLAGS = ("-h", "--help", "--version")
# A reader that went away, such as `| head`: 128 + SIGPIPE, as a shell would say.
BROKEN_PIPE = 141


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"model-analyzer {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure models on NVIDIA Triton Inference Server at every batch size and load."""


def register() -> typer.Typer:
    """The application with its commands; a second call adds none."""
    from model_analyzer.cli import commands, doctor, original

    if not app.registered_commands:
        commands.register(app)
        doctor.register(app)
        original.register(app)
    return app


def _command(arguments: list[str]) -> Any:
    """The application; of a line that names a command, with that one only: typer takes its time to describe each."""
    whole = register()
    named = [each for each in whole.registered_commands if arguments[:1] == [_name(each)]]
    lean = copy(whole)
    lean.registered_commands = named or whole.registered_commands
    return typer.main.get_command(lean)


def _name(command: Any) -> str:
    return str(command.name or command.callback.__name__)


def main(argv: list[str] | None = None) -> None:
    """Run the command line; ends the process. Never shows a traceback for anything that a user can cause."""
    from model_analyzer.cli import said, usage

    arguments = list(sys.argv[1:] if argv is None else argv)
    said.choose(as_json=said.wants_json(arguments))
    try:
        with interruptible():
            arguments = usage.without_mode(arguments) or ["--help"]
            if arguments[0].startswith("-") and arguments[0] not in ROOT_FLAGS:
                # The original tool had no subcommands: its flags stand at the root.
                from model_analyzer.cli import original

                arguments.insert(0, original.NAME)
            code = _command(arguments).main(arguments, prog_name="model-analyzer", standalone_mode=False)
            sys.stdout.flush()
    except AnalyzerError as error:
        sys.exit(said.error(error))
    except usage.USAGE_ERROR as error:
        sys.exit(said.error(usage.plain(error, arguments)))
    except SystemExit as error:
        # typer ends with 1 where the reader of the output went away; 1 is for what nobody foresaw.
        sys.exit(BROKEN_PIPE if isinstance(error.__context__, BrokenPipeError) else error.code)
    except BrokenPipeError:
        # What is still buffered has no reader either: without this the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    sys.exit(code or 0)
