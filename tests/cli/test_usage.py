"""Command lines that cannot be understood end with 2, in one line, with a hint."""

from __future__ import annotations

import pytest
from cli.conftest import Command

from model_analyzer import __version__
from model_analyzer.cli.flags import ANSWERED, FLAGS
from model_analyzer.cli.main import register

COMMANDS = ("profile", "plan", "validate", "status", "tables", "merge", "schema")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("profil -f x", "error: command line: no such command: profil; did you mean profile?"),
        ("xyz", "error: command line: no such command: xyz; use one of profile, plan, validate, status, tables, merge, schema, fetch, doctor"),
        ("analyze", "error: command line: no such command: analyze; the tables are made by `profile`, and again by `tables`"),
        ("profile --confg-file x", "error: command line: no such flag: --confg-file; did you mean --config-file?"),
        ("plan --concurency 1", "error: command line: no such flag: --concurency; did you mean --concurrency?"),
        ("plan --profile-export-file x", "error: command line: no such flag: --profile-export-file; it is perf_analyzer's, and without effect: the load generator is built in; instead every slice is in the store in export_path"),
        ("plan --request-parameter a:1:int", "error: command line: no such flag: --request-parameter; it is perf_analyzer's, and not supported yet: parameters beside a request's inputs; instead leave it out, or give the value as an input, in input-data"),
        ("plan --input-data zero", "error: command line: no such flag: --input-data; it is perf_analyzer's: write it into a job spec, perf_analyzer_flags: {input-data: ...}"),
        ("status --nonsense", "error: command line: no such flag: --nonsense; see `model-analyzer status -h`"),
        ("plan -Z", "error: command line: no such flag: -Z; see `model-analyzer plan -h`"),
        ("--modl-names a", "error: command line: no such flag: --modl-names; did you mean --model-names?"),
        ("plan -f", "error: -f: needs a value; see `model-analyzer plan -h`"),
        ("plan -n a -b 1, 4", "error: command line: 4 belongs to no flag; write lists without blanks, such as 1,4; see `model-analyzer plan -h`"),
        ("plan -f nope.yaml", "error: nope.yaml: cannot be read (No such file or directory); name a job spec that exists"),
        ("plan -n a -m /m -b 0", "error: --batch-sizes: batch_sizes is 0; use 1 or more"),
        ("plan -n a -m /m --duration-seconds long", "error: --duration-seconds: duration_seconds is 'long'; use a number"),
        ("plan -n a -m /m --run-config-search-mode quick", "error: --run-config-search-mode: not supported yet: run_config_search_mode (automatic search); instead list the values: batch_sizes, concurrency, model_config_parameters"),
        ("-f job.yaml", "error: command line: a job spec without a command; write model-analyzer profile -f job.yaml"),
        ("-m a", "error: command line: -m/--model-names and --model-folder are needed; see model-analyzer --help"),
        ("-m a --model-folder /m --export", "error: command line: --export without a folder; give -e/--export-path, too"),
        ("-m a --model-folder /m -b 0", "error: --batch: batch_sizes is 0; use 1 or more"),
        ("status -e nowhere", "error: nowhere: holds no measurements; name the export path of a run"),
    ],
)  # fmt: skip
def test_a_command_line_that_is_wrong_is_one_line_with_a_hint(command: Command, arguments: str, expected: str) -> None:
    ended = command(*arguments.split())
    assert ended.code == 2
    assert ended.errors == [expected]
    assert ended.out == ""


def test_every_fault_of_a_command_line_comes_at_once(command: Command) -> None:
    ended = command("plan", "-n", "a,a", "-m", "/m", "-b", "x", "--client-protocol", "udp")
    assert ended.code == 2
    assert sorted(ended.errors) == [
        "error: --batch-sizes: batch_sizes is 'x'; use an integer",
        "error: --client-protocol: client_protocol is 'udp'; use 'http' or 'grpc'",
        "error: --profile-models: profile_models names a twice; name a model once",
    ]


@pytest.mark.parametrize("asked", [["--help"], ["-h"], []])
def test_help_names_every_command(command: Command, asked: list[str]) -> None:
    ended = command(*asked)
    assert (ended.code, ended.err) == (0, "")
    assert [name for name in COMMANDS if f"\n  {name} " not in ended.out] == []
    assert "original" not in ended.out.replace("The original tool's", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_flag_has_help(command: Command, name: str) -> None:
    ended = command(name, "-h")
    assert ended.code == 0
    import typer.main

    described = typer.main.get_command(register()).commands[name]  # type: ignore[attr-defined]
    assert described.help
    assert [option.name for option in described.params if not option.help] == []
    for option in described.params:
        assert option.hidden or option.opts[-1] in ended.out


def test_version(command: Command) -> None:
    ended = command("--version")
    assert (ended.code, ended.out) == (0, f"model-analyzer {__version__}\n")


def test_every_flag_of_triton_model_analyzer_is_known_where_a_job_is(command: Command) -> None:
    given = [
        word for flag in (*FLAGS, *ANSWERED) for word in (flag.names[-1], *([] if flag.kind == "switch" else ["1"]))
    ]
    ended = command("validate", *given)
    assert ended.code == 2
    assert "no such flag" not in ended.err
    assert "error: --bls-composing-models: not supported yet: " in ended.err
    lines = ended.err.splitlines()
    assert any(line.startswith("warning: --checkpoint-directory: ") for line in lines)
    kinds = [line.partition(":")[0] for line in lines]
    assert kinds == sorted(kinds, reverse=True), "warnings come first, faults last, where one looks"


@pytest.mark.parametrize("words", [["-m", "online"], ["--mode", "offline"], ["--mode=online"]])
def test_the_global_mode_of_triton_model_analyzer_draws_a_warning(command: Command, words: list[str]) -> None:
    ended = command(*words, "plan", "-n", "a", "-m", "/m", "-c", "1")
    assert ended.code == 0
    assert f"warning: {' '.join(words)} has no effect: it chose a preset of plots; remove it" in ended.err


def test_a_model_may_be_called_online(command: Command, measured: list[object]) -> None:
    assert command("-m", "online", "--model-folder", "/m").code == 0
    assert len(measured) == 1


def test_how_much_is_printed_draws_a_warning(command: Command) -> None:
    ended = command("plan", "-n", "a", "-m", "/m", "-c", "1", "-v", "-q")
    assert ended.code == 0
    assert [line for line in ended.err.splitlines() if "redirect" in line] == [
        "warning: --verbose has no effect; redirect the output instead",
        "warning: --quiet has no effect; redirect the output instead",
    ]
