"""The entry point: chooses the command, turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from copy import copy
from typing import Annotated, Any

import typer

from model_analyzer import __version__
from model_analyzer.errors import AnalyzerError, ExportPathError
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


def _run(arguments: list[str]) -> Any:
    """The exit code of a command line; None: 0. Raises AnalyzerError, and usage.USAGE_ERROR with all that could be meant."""
    from model_analyzer.cli import usage

    try:
        return _main(_command(arguments, lean=True), arguments)
    except usage.USAGE_ERROR:
        return _main(_command(arguments), arguments)


def _main(command: Any, arguments: list[str]) -> Any:
    return command.main(arguments, prog_name="model-analyzer", standalone_mode=False)


def _command(arguments: list[str], lean: bool = False) -> Any:
    """The application; of a line that names a command, with that one only: typer takes its time to describe each.

    lean: with the flags only that the line names: typer builds a validator for each, given or not.
    """
    whole = register()
    named = [each for each in whole.registered_commands if arguments[:1] == [_name(each)]]
    narrow = copy(whole)
    narrow.registered_commands = named or whole.registered_commands
    built = typer.main.get_command(narrow)
    if lean and named and not {"-h", "--help"} & {*arguments}:
        for command in built.commands.values():  # type: ignore[attr-defined]
            command.params = [option for option in command.params if option.required or _is_named(option, arguments)]
    return built


def _is_named(option: Any, arguments: list[str]) -> bool:
    """Whether a command line may name it: --flag, --flag=value, -f, -fvalue. An argument without a dash is always meant."""
    return any(
        not name.startswith("-")
        or any(each == name or each.startswith(f"{name}=" if name.startswith("--") else name) for each in arguments)
        for name in (*option.opts, *option.secondary_opts)
    )


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
            code = _run(arguments)
            sys.stdout.flush()
    except AnalyzerError as error:
        sys.exit(said.error(error))
    except usage.USAGE_ERROR as error:
        sys.exit(said.error(usage.plain(error, arguments)))
    except SystemExit as error:
        # typer ends with 1 where the reader of the output went away; 1 is for what nobody foresaw.
        sys.exit(BROKEN_PIPE if isinstance(error.__context__, BrokenPipeError) else error.code)
    except BrokenPipeError:
        _drop_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        # Files of ours are answered where they are written: without a name it is the output, sent to a full disk.
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _drop_output()
        sys.exit(said.error(ExportPathError("standard output", "no space left on the device", "free space, run again")))
    sys.exit(code or 0)


def _drop_output() -> None:
    """What is still buffered finds no room either: without this the interpreter complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
