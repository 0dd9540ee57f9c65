"""plan, validate, schema, and the flags of a job: what they print, and what they leave alone."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Command

from model_analyzer.adapters.reference import render_schema

JOB = """\
model_repository: models
profile_models: [a, b]
batch_sizes: [1, 4]
concurrency: [1, 8]
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_plan_prints_each_phase_and_how_long_the_job_takes(command: Command, job: Path) -> None:
    ended = command("plan", "-f", str(job))
    *phases, total = ended.out.splitlines()
    assert ended.code == 0
    assert [line.split("  ")[1] for line in phases] == [
        f"{model}_config_default batch {batch} concurrency {load}"
        for model in "ab"
        for batch in (1, 4)
        for load in (1, 8)
    ]
    assert total.startswith("8 phases of 2 variants, embedded Triton, about ")


def test_plan_touches_nothing(command: Command, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        pytest.fail("plan went out of the process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    for mode in ("remote", "docker", "embedded", "local"):
        assert command("plan", "-f", str(job), "--triton-launch-mode", mode, "-e", "out/there").code == 0
    assert list(tmp_path.iterdir()) == [job]


def test_plan_says_what_a_longer_measurement_costs(command: Command, job: Path) -> None:
    def seconds(*flags: str) -> int:
        minutes, rest = command("plan", "-f", str(job), *flags).out.rsplit("about ", 1)[1].split(" min ", 1)
        return int(minutes) * 60 + int(rest.split()[0])

    assert seconds("--max-seconds", "60") > 2 * seconds("--max-seconds", "10")


def test_plan_says_between_what_the_time_lies_and_what_it_does_not_know(command: Command, job: Path) -> None:
    def said(*flags: str) -> str:
        return command("plan", "-f", str(job), *flags).out.splitlines()[-1].split("Triton, about ")[1]

    assert re.fullmatch(r"\d+ min \d\d s \(\d+ min \d\d s to \d+ min \d\d s\)", said())
    assert said("--request-count", "100").endswith(
        "s by the stop rule alone; not known before the run: how fast a, b will answer (request_count)"
    )


@pytest.mark.parametrize(
    ("keys", "terms"),
    [
        ("concurrency: 4\n", ""),
        ("concurrency: 4\nramp_seconds: 2\nrequest_count: 100\n", " (ramp 2 s, 100 requests)"),
        ("request_rate: 50\n", " (evenly spaced)"),
        (
            "request_rate: 50\nmax_concurrency: 8\nramp_seconds: 0.5\nperf_analyzer_flags: {request-distribution: poisson}\n",
            " (Poisson, at most 8 in flight, ramp 0.5 s)",
        ),
        ("request_intervals: intervals.txt\nrequest_count: 9\n", " (custom intervals, 9 requests)"),
        ("concurrency: 4\nshared_memory: system\n", " (shared memory)"),
        ("concurrency: 4\nperf_analyzer_flags: {streaming: true}\n", " (stream_infer)"),
    ],
)
def test_plan_says_what_is_particular_about_a_phase(command: Command, tmp_path: Path, keys: str, terms: str) -> None:
    (tmp_path / "intervals.txt").write_text("20000\n")
    (tmp_path / "job.yaml").write_text(f"model_repository: models\nprofile_models: a\n{keys}")
    phase, total = command("plan", "-f", "job.yaml", "--repeats", "3").out.splitlines()
    load = "concurrency 4" if "concurrency: 4" in keys else "request_rate 50"
    assert phase.split("  ")[1] == f"a_config_default batch 1 {load}{terms}"
    assert total.startswith("1 phases of 1 variants, 3 repeats of each, ")


def test_a_changed_model_is_another_phase_and_a_missing_folder_is_no_fault(
    command: Command, job: Path, tmp_path: Path
) -> None:
    first = command("plan", "-f", str(job)).out
    assert command("plan", "-f", str(job)).out == first
    (tmp_path / "models" / "a").mkdir(parents=True)
    (tmp_path / "models" / "a" / "config.pbtxt").write_text("")
    second = command("plan", "-f", str(job)).out
    changed = [one != other for one, other in zip(first.splitlines(), second.splitlines(), strict=True)]
    assert changed == [True] * 4 + [False] * 5


def test_flags_win_over_the_file(command: Command, job: Path) -> None:
    out = command("plan", "-f", str(job), "-n", "c", "-b", "2", "-b", "4,6", "-c", "1:3").out
    assert [line.split("  ")[1] for line in out.splitlines()[:-1]] == [
        f"c_config_default batch {batch} concurrency {load}" for batch in (2, 4, 6) for load in (1, 2, 3)
    ]


def test_a_job_is_given_by_flags_alone(command: Command) -> None:
    ended = command("plan", "-m", "/models", "--profile-models", "a,b", "-b", "1", "--request-rate", "10,20")
    assert ended.out.splitlines()[-1].startswith("4 phases of 2 variants")
    assert ended.err == ""


def test_an_empty_value_is_not_as_if_the_flag_were_not_there(command: Command) -> None:
    ended = command("plan", "-n", "a", "-m", "/m", "--triton-http-endpoint", "")
    assert ended.code == 2
    assert ended.errors == ["error: --triton-http-endpoint: triton_http_endpoint is ''; use host:port"]


def test_validate_says_ok_and_how_many_phases(command: Command, job: Path) -> None:
    make_models(job.parent, "a", "b")
    ended = command("validate", "-f", str(job))
    assert (ended.code, ended.out, ended.err) == (0, "ok: 8 phases\n", "")


@pytest.mark.parametrize("asked", ["validate", "doctor"])
def test_a_repository_that_is_not_there_is_a_fault_of_the_job(command: Command, job: Path, asked: str) -> None:
    ended = command(asked, "-f", str(job))
    assert ended.code == 2
    what = f"model_repository: {job.parent}/models: is not a directory; make it a directory of models"
    assert what in ended.out + ended.err


def test_a_model_that_the_repository_has_not_is_a_fault_of_the_job(command: Command, job: Path) -> None:
    make_models(job.parent, "a", "c")
    ended = command("validate", "-f", str(job))
    assert ended.code == 2
    what = "has no model b; it has a, c; correct profile_models"
    assert ended.errors == [f"error: model_repository: {job.parent}/models: {what}"]


def test_the_server_itself_looks_into_a_repository_elsewhere(command: Command) -> None:
    for asked in (["-m", "s3://bucket/models"], ["--triton-launch-mode", "remote"]):
        assert command("validate", "-n", "a", "-c", "1", *asked).code == 0


TAKES_4 = """\
backend: "python"
max_batch_size: 8
input [ { name: "INPUT", data_type: TYPE_INT32, dims: [ 4 ] } ]
output [ { name: "OUTPUT", data_type: TYPE_INT32, dims: [ 4 ] } ]
"""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"data": [{"INPUT": [1, 2, 3]}]}', "data.json: data[0].INPUT: does not fit INT32 [4]: 3 values; give its values"),
        ('{"data": [{"IN": [1, 2, 3, 4]}]}', "data.json: data[0]: unknown input IN; the inputs are INPUT"),
        ('{"data": [{"INPUT": [1, 2, 3, 0.5]}]}', "data.json: data[0].INPUT: does not fit INT32 [4]: not every value is an INT32"),
        ('{"data": [[1, 2, 3, 4]]}', "data.json: data[0][0]: is not a mapping of inputs"),
        ('[{"INPUT": [1, 2, 3, 4]}]', "data.json: has no entries in data"),
        ("INPUT: 1", "data.json: is no JSON"),
        (None, "data.json: cannot be read (No such file or directory)"),
    ],
)  # fmt: skip
def test_input_data_is_looked_at_before_a_run(command: Command, tmp_path: Path, data: str | None, said: str) -> None:
    make_models(tmp_path, "a")
    (tmp_path / "models" / "a" / "config.pbtxt").write_text(TAKES_4)
    (tmp_path / "job.yaml").write_text(
        "model_repository: models\nprofile_models: [a]\nconcurrency: 1\nperf_analyzer_flags: {input-data: data.json}\n"
    )
    if data is not None:
        (tmp_path / "data.json").write_text(data)
    ended = command("validate", "-f", "job.yaml")
    assert ended.code == 2
    (line,) = ended.errors
    assert line.startswith(f"error: {said}")


def test_input_data_that_fits_is_right_and_so_is_what_only_triton_can_say(command: Command, tmp_path: Path) -> None:
    make_models(tmp_path, "a", "open")
    (tmp_path / "models" / "a" / "config.pbtxt").write_text(TAKES_4)
    (tmp_path / "data.json").write_text('{"data": [{"INPUT": [1, 2, 3, 4]}]}')
    for model in ("a", "open"):
        (tmp_path / "job.yaml").write_text(
            f"model_repository: models\nprofile_models: [{model}]\nperf_analyzer_flags: {{input-data: data.json}}\n"
        )
        assert command("validate", "-f", "job.yaml").code == 0


def test_a_decoupled_model_has_no_shared_memory(command: Command, tmp_path: Path) -> None:
    make_models(tmp_path, "a")
    (tmp_path / "models" / "a" / "config.pbtxt").write_text(TAKES_4 + "model_transaction_policy { decoupled: True }\n")
    ended = command("validate", "-n", "a", "-m", "models", "-c", "1", "--shared-memory", "system")
    assert ended.code == 2
    assert ended.errors[0].startswith("error: model a: answers a request several times")


def test_a_model_with_state_is_a_fault_of_the_job(command: Command, tmp_path: Path) -> None:
    make_models(tmp_path, "a")
    (tmp_path / "models" / "a" / "config.pbtxt").write_text(TAKES_4 + "sequence_batching { }\n")
    ended = command("validate", "-n", "a", "-m", "models", "-c", "1")
    assert ended.code == 2
    assert ended.errors[0].startswith("error: model a: takes sequences of requests (sequence_batching)")


def make_models(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "models" / name).mkdir(parents=True)


def test_validate_prints_every_fault(command: Command, job: Path) -> None:
    job.write_text(JOB + "concurency: 1\nmax_seconds: soon\ngpu_output_fields: [gpu_uid]\n")
    ended = command("validate", "-f", "job.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "error: job.yaml:5: unknown key 'concurency'; did you mean 'concurrency'?",
        "error: job.yaml:6: max_seconds is 'soon'; use a number",
        "error: job.yaml:7: output field 'gpu_uid' is unknown; did you mean 'gpu_uuid'?",
    ]


def test_warnings_do_not_fail_a_job(command: Command, job: Path) -> None:
    job.write_text(JOB + "checkpoint_directory: /tmp/x\n")
    make_models(job.parent, "a", "b")
    ended = command("validate", "-f", "job.yaml")
    assert ended.code == 0
    assert ended.err.startswith("warning: job.yaml:5: checkpoint_directory has no effect: ")


def test_schema_prints_the_schema(command: Command) -> None:
    ended = command("schema")
    assert ended.out == render_schema()
    assert json.loads(ended.out)["$schema"].endswith("2020-12/schema")


def test_profile_measures_the_job(command: Command, job: Path, measured: list[Any]) -> None:
    assert command("profile", "-f", str(job), "-e", "out").code == 0
    (one,) = measured
    assert (len(one.phase_ids), one.export_path.name) == (8, "out")


# -- shards --------------------------------------------------------------------------------------------


def test_plan_says_which_shard_has_which_phase_and_how_long_the_longest_takes(command: Command, job: Path) -> None:
    plain = command("plan", "-f", str(job)).out.splitlines()
    ended = command("plan", "-f", str(job), "--shards", "2")
    *phases, total = ended.out.splitlines()
    assert ended.code == 0, "no index is needed to see the plan"
    shards = ["shard 0"] * 4 + ["shard 1"] * 4
    assert phases == [f"{line}  {shard}" for line, shard in zip(plain[:-1], shards, strict=True)]
    assert total.startswith("8 phases of 2 variants in 2 shards, embedded Triton, about ")
    assert total.rpartition("about ")[2] != plain[-1].rpartition("about ")[2]


def test_a_shard_measures_its_part_in_a_folder_of_its_own(
    command: Command, job: Path, measured: list[Any], tmp_path: Path
) -> None:
    for index in "01":
        assert command("profile", "-f", str(job), "-e", "out", "--shards", "2", "--shard-index", index).code == 0
    first, second = measured
    assert [{group.variant.model for group in each.groups} for each in measured] == [{"a"}, {"b"}]
    assert (first.export_path, second.export_path) == (tmp_path / "out/shard-0", tmp_path / "out/shard-1")
    assert first.whole == second.whole


def test_an_indexed_job_says_which_shard_it_is(
    command: Command, job: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    command("profile", "-f", str(job), "--shards", "2")
    command("profile", "-f", str(job), "--shards", "2", "--shard-index", "0")
    command("profile", "-f", str(job))
    assert [each.shard for each in measured] == [1, 0, None], "the flag wins; without shards it says nothing"


@pytest.mark.parametrize(
    ("flags", "index", "error"),
    [
        ("--shards 2", None, "shards: 2 shards, and nothing says which one this run is; give --shard-index 0 to 1 (an Indexed Job sets JOB_COMPLETION_INDEX)"),
        ("--shards 2 --shard-index 2", None, "shard_index: shard 2 of 2: they count from 0; use 0 to 1, or more shards"),
        ("--shard-index 1", None, "shard_index: shard 1 of 1: they count from 0; give the number of shards, too"),
        ("--shards 2", "2", "JOB_COMPLETION_INDEX: shard 2 of 2: they count from 0; use 0 to 1, or more shards"),
        ("--shards 2", "one", "JOB_COMPLETION_INDEX: is 'one'; give --shard-index 0 to 1"),
    ],
)  # fmt: skip
def test_a_shard_that_is_none_is_an_error(
    command: Command,
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    index: str | None,
    error: str,
) -> None:
    if index is None:
        monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    else:
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
    ended = command("profile", "-f", str(job), "-e", "out", *flags.split())
    assert (ended.code, ended.errors) == (2, [f"error: {error}"])
    assert not (tmp_path / "out").exists()


def test_a_surplus_shard_says_so_writes_empty_tables_and_is_no_failure(
    command: Command, job: Path, tmp_path: Path
) -> None:
    bound = ("--latency-budget", "1")
    ended = command("profile", "-f", str(job), "-e", "out", "--shards", "3", "--shard-index", "2", *bound)
    assert ended.code == 0
    assert "shard 2 has nothing to measure: 3 shards, 2 variants; a variant is measured by one shard" in ended.err
    written = sorted(path.name for path in (tmp_path / "out" / "shard-2").glob("*.csv"))
    assert written == ["metrics-model-gpu.csv", "metrics-model-inference.csv", "metrics-server-only.csv"]
    assert len((tmp_path / "out" / "shard-2" / written[1]).read_text().splitlines()) == 1, "the header"
    assert command("status", "-e", "out/shard-2").code == 0


def test_a_cpu_that_is_not_there_is_an_error_before_anything_is_touched(
    command: Command, job: Path, tmp_path: Path
) -> None:
    ended = command("profile", "-f", str(job), "--client-cpus", "0,4000-4001", "-e", "out/there")
    assert ended.code == 2
    assert "client_cpus: CPU 4000, 4001 is not there, or not ours; use some of " in ended.err
    assert list(tmp_path.iterdir()) == [job]
