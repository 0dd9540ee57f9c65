"""The entry point: chooses the command, turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from model_analyzer import __version__
from model_analyzer.errors import AnalyzerError
from model_analyzer.interrupt import interruptible

app = typer.Typer(
    name="model-analyzer",
    help="Measure models on NVIDIA Triton Inference Server at every batch size and load.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The original tool's command lines work, too: model-analyzer -m MODELS --model-folder DIR -b 1,4 -c 1,8 -e DIR --export",
)
ROOT_FLAGS = ("-h", "--help", "--version")


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


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Never shows a traceback for anything that a user can cause."""
    from model_analyzer.cli import commands, original

    commands.register(app)
    original.register(app)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0].startswith("-") and arguments[0] not in ROOT_FLAGS:
        # The original tool had no subcommands: its flags stand at the root.
        arguments.insert(0, original.NAME)
    try:
        with interruptible():
            app(arguments, standalone_mode=True)
    except AnalyzerError as error:
        sys.exit(report(error))
    except BrokenPipeError:
        sys.exit(141)


def report(error: AnalyzerError) -> int:
    """One line a fault, to stderr; the exit code."""
    for fault in error.faults:
        print(f"error: {fault}", file=sys.stderr)
    return error.exit_code
