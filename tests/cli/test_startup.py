"""--help answers at once because it imports nothing that it does not need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "pydantic", "yaml", "tritonclient", "rich", "kubernetes", "docker", "grpc", "prometheus_client", "urllib3",
         "psutil", "gevent", "asyncio")  # fmt: skip
SAY = "import sys; from model_analyzer.cli.main import main\ntry: main({!r})\nfinally: print(*sys.modules, file=sys.stderr)"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["profile", "--help"]], ids=" ".join)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SAY.format(arguments)], capture_output=True, text=True, check=False, timeout=240
    )
    modules = ran.stderr.splitlines()[-1].split()
    assert "model_analyzer.cli.main" in modules
    # typer itself imports pydantic for the parameters of a command, where it is installed.
    allowed = {"pydantic"} if len(arguments) > 1 else set()
    assert [name for name in HEAVY if name in modules and name not in allowed] == []


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_plan_imports_nothing_of_a_run(tmp_path: Path, command: str) -> None:
    (tmp_path / "a").mkdir()
    arguments = [command, "-n", "a", "-m", str(tmp_path), "-c", "1"]
    ran = subprocess.run(
        [sys.executable, "-c", SAY.format(arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    modules = ran.stderr.splitlines()[-1].split()
    assert "model_analyzer.job" in modules
    of_a_run = (
        "tritonclient",
        "rich",
        "kubernetes",
        "docker",
        "grpc",
        "prometheus_client",
        "urllib3",
        "psutil",
        "gevent",
        "asyncio",
    )
    assert [name for name in of_a_run if name in modules] == []


@pytest.mark.parametrize(
    ("protocol", "dear"),
    [
        # tritonclient.http brings gevent, tritonclient.grpc grpc, asyncio and protobuf; a run over HTTP needs none of them,
        ("http", ["tritonclient", "gevent", "grpc", "google.protobuf", "asyncio"]),
        # and one over gRPC the messages alone.
        ("grpc", ["gevent", "grpc", "asyncio"]),
    ],
)
def test_encoding_imports_no_client(protocol: str, dear: list[str]) -> None:
    code = f"""
import sys
from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import InputSource
from model_analyzer.core.variant import ModelInfo, TensorInfo
model = ModelInfo("m", "1", 8, (TensorInfo("A", "FP32", (2,)),), (), "1:CPU")
assert TritonEncoder().encode(model, 1, InputSource(), {protocol!r}, "localhost:8000").requests
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = ran.stdout.split()
    assert [name for name in dear if name in modules] == []


def test_a_run_that_nobody_looks_at_imports_no_live_display() -> None:
    code = "import sys, model_analyzer.wire; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = ran.stdout.split()
    assert "model_analyzer.adapters.progress" in modules
    assert [name for name in ("rich.progress", "rich.live") if name in modules] == []


def test_scrapes_and_control_need_no_more_than_the_standard_librarys_http() -> None:
    code = """
import sys
from model_analyzer.adapters.telemetry.triton import TritonSampler
from model_analyzer.adapters.triton.wire_api import HttpApi
assert TritonSampler("http://127.0.0.1:1/metrics").sample().problem and HttpApi("127.0.0.1:1")
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert [name for name in ("urllib3", "urllib.request", "requests") if name in ran.stdout.split()] == []


@pytest.mark.parametrize("given", [None, "3"], ids=["not given", "given"])
def test_a_job_starts_no_threads_looks_for_no_plugins_and_a_server_that_we_start_does_not_know(
    given: str | None,
) -> None:
    code = """
import os
from model_analyzer.cli.commands import load
load(None, {"profile_models": ["a"], "model_repository": "/m"})
import numpy, pydantic.plugin._loader
print(len(os.listdir("/proc/self/task")), pydantic.plugin._loader._plugins)
print(os.environ.get("OPENBLAS_NUM_THREADS"), os.environ.get("PYDANTIC_DISABLE_PLUGINS"))
"""
    names = ("OPENBLAS_NUM_THREADS", "PYDANTIC_DISABLE_PLUGINS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    if given is not None:
        environment.update(dict.fromkeys(names, given))
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert ran.stdout == f"1 None\n{given} {given}\n"


def test_a_start_is_not_interrupted_by_the_collector_and_its_end_takes_nothing_apart(tmp_path: Path) -> None:
    """What would run once all modules are to be taken apart does not run; what was printed is there."""
    code = """
import atexit, gc, sys
from model_analyzer.__main__ import main
sys.argv[1:] = ["plan", "-n", "a", "-m", "/m", "-c", "1"]
atexit.register(print, "taken apart", file=sys.stderr)
gc.callbacks.append(lambda phase, _: phase == "start" and sys.stderr.write("c"))
main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    )
    assert "1 phases of 1 variants" in ran.stdout
    assert ran.stderr == "", "one `c` a collection; Python's own thresholds make 100"


def test_the_load_generator_imports_no_library() -> None:
    code = "import sys; from model_analyzer.loadgen import __main__, driver, grpc_stream, http, http_generate; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = ran.stdout.split()
    assert "model_analyzer.loadgen.driver" in modules
    # Of Python's own: dataclasses brings inspect and ast, ssl is for an order with TLS, random for a Poisson one.
    dear = ("msgspec", "typer", "dataclasses", "inspect", "ssl", "hashlib", "random", "urllib.parse")
    assert [name for name in (*HEAVY, *dear) if name in modules] == []


def test_only_the_flags_that_a_line_names_are_built() -> None:
    from model_analyzer.cli.main import _command

    for arguments, known in (
        (["plan", "-n", "a", "-c1,2", "--batch-sizes=1"], {"profile_models", "concurrency", "batch_sizes"}),
        (["status"], set()),
    ):
        (command,) = _command(arguments, lean=True).commands.values()
        assert {option.name for option in command.params} == known
    for arguments in (["plan", "--help"], ["plan", "-n", "a", "-h"]):
        (command,) = _command(arguments, lean=True).commands.values()
        assert len(command.params) > 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--batch-size", "1"], "error: command line: no such flag: --batch-size; did you mean --batch-sizes?"),
        (
            ["plan", "-n", "a", "--concurency=3"],
            "error: command line: no such flag: --concurency; did you mean --concurrency?",
        ),
        (["plan", "-n"], "error: -n: needs a value; see `model-analyzer plan -h`"),
    ],
)
def test_a_flag_that_is_wrong_is_answered_from_all_of_them(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from model_analyzer.cli.main import main

    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err == f"{said}\n"


def test_switches_that_are_joined_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    from model_analyzer.cli.main import main

    with pytest.raises(SystemExit):
        main(["plan", "-qv", "-n", "a", "-m", "/m", "-c", "1"])
    told = capsys.readouterr()
    assert "1 phases" in told.out
    assert "--quiet has no effect" in told.err
    assert "--verbose has no effect" in told.err


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_while_modules_are_imported_is_one_line(tmp_path: Path, signum: int, name: str) -> None:
    """A signal that comes with the first import of another's module: long before a command runs."""
    (tmp_path / "typer.py").write_text(f"import os\nos.kill(os.getpid(), {signum:d})\nos.kill(os.getpid(), 0)\n")
    ran = subprocess.run(
        [sys.executable, "-m", "model_analyzer", "profile"], capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 128 + signum
    assert ran.stderr == f"error: run: interrupted by {name}; run the same command again to resume\n"


def test_the_installed_program_begins_where_python_m_does() -> None:
    """Its first import is the one that answers signals."""
    declared = (ROOT / "pyproject.toml").read_text()
    assert '\nmodel-analyzer = "model_analyzer.__main__:main"\n' in declared


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "model_analyzer", "plan", "-n", "a", "-m", "/m", "-c", "1"],
        capture_output=True, text=True, check=True, timeout=240, cwd=tmp_path,
    )  # fmt: skip
    assert "1 phases of 1 variants" in ran.stdout


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    plan = f"{sys.executable} -m model_analyzer plan -n a -m /m -b 1:1000 -c 1:10"
    script = f"({plan}; echo code $? >&2) | head -1"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=240, cwd=tmp_path)
    assert ran.stdout.count("\n") == 1
    assert ran.stderr == "code 141\n"


def test_an_output_on_a_full_disk_is_no_traceback() -> None:
    command = [sys.executable, "-m", "model_analyzer", "schema"]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=240)
    line = "error: standard output: no space left on the device; free space, run again\n"
    assert (ran.returncode, ran.stderr) == (6, line)


def test_the_start_up_bench_prints_its_figures() -> None:
    ran = subprocess.run(
        [sys.executable, "bench/startup.py", "--runs", "1", "--only", "import model_analyzer.core"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=ROOT,
    )
    assert ran.stdout.splitlines()[1].startswith("import model_analyzer.core.spec ")
