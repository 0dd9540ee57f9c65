"""A job file with faults: each is one line with its place, all at once, and nothing but a SpecError ever comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_analyzer.adapters import jobfile
from model_analyzer.core.keys import KEYS, PERF_FLAGS, PERF_FLAGS_WORK
from model_analyzer.core.plan import plan
from model_analyzer.core.spec import JobSpec, ModelSpec
from model_analyzer.errors import SpecError

HEAD = "model_repository: /models\nconcurrency: 1\n"


def load(tmp_path: Path, text: str | bytes, environ: dict[str, str] | None = None, **flags: Any) -> JobSpec:
    return read(tmp_path, text, environ, **flags)[0]


def read(
    tmp_path: Path, text: str | bytes, environ: dict[str, str] | None = None, **flags: Any
) -> tuple[JobSpec, list[str]]:
    path = tmp_path / "job.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    names = {key: f"--{key.replace('_', '-')}" for key in flags}
    spec, warnings = jobfile.load(path, flags, environ or {}, names)
    return spec, [str(warning).replace(f"{path}:", "job.yaml:").replace(str(path), "job.yaml") for warning in warnings]


def faults(tmp_path: Path, text: str | bytes, environ: dict[str, str] | None = None, **flags: Any) -> list[str]:
    """The lines of the error, the folder left out."""
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text, environ, **flags)
    assert caught.value.exit_code == 2
    path = tmp_path / "job.yaml"
    return [str(fault).replace(str(path), "job.yaml") for fault in caught.value.faults]


# -- what stands where ---------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    text = HEAD + "profile_models: [a]\nexport_pth: out\n"
    assert faults(tmp_path, text) == ["job.yaml:4: unknown key 'export_pth'; did you mean 'export_path'?"]


def test_all_faults_of_a_file_come_at_once_each_with_its_own_line_in_order(tmp_path: Path) -> None:
    text = """\
model_repositry: /models
batch_sizes: [1, x]
concurrency: 0
min_seconds: 9
max_seconds: 3
weighting: 3
inference_output_fields:
  - model_name
  - perf_throughputt
constraints:
  perf_latency_p99: 50
  perf_latency_p98: {max: 3}
  perf_client_send_recv: {max: 3}
export_path: ${NOPE}
perf_analyzer_flags:
  shap: INPUT:3
  ssl-https-private-key-type: DER
  shape: [INPUT:3, bad]
profile_models:
  - a, b
  - c:
      batch_sizes: 3
      model_config_parameters:
        instance_group:
          - kind: KIND_CPU
            counts: [1, 2]
      parameters:
        concurrency: {start: 3, stop: 1}
    d:
      cpu_only: maybe
      constraints:
        perf_throughput: {min: 5, max: 2}
"""
    assert faults(tmp_path, text) == [
        "job.yaml:1: unknown key 'model_repositry'; did you mean 'model_repository'?",
        "job.yaml:2: batch_sizes is 'x'; use an integer",
        "job.yaml:3: concurrency is 0; use 1 or more",
        "job.yaml:4: min_seconds 9 is above max_seconds 3; lower the one or raise the other",
        "job.yaml:6: weighting stands for all models, and it weighs them against each other; give it to a model, in profile_models",
        "job.yaml:9: output field 'perf_throughputt' is unknown; did you mean 'perf_throughput'?",
        "job.yaml:11: constraint perf_latency_p99 is 50; write {max: 50}",
        "job.yaml:12: metric 'perf_latency_p98' is unknown; did you mean 'perf_latency_p99'?",
        "job.yaml:13: not supported yet: perf_client_send_recv (Client Send/Recv (ms)); leave it out",
        "job.yaml:14: variable NOPE is not set; set it, or write ${NOPE:-default}",
        "job.yaml:16: unknown perf_analyzer flag 'shap'; did you mean 'shape'?",
        "job.yaml:17: not supported yet: ssl-https-private-key-type DER; instead use PEM; `openssl x509` and `openssl pkey` convert",
        "job.yaml:18: shape 'bad' is not NAME:dim,dim,...; write it like INPUT0:3,224,224",
        "job.yaml:22: unknown key 'batch_sizes'; put it into the model's parameters: {batch_sizes: ...}",
        "job.yaml:26: field 'counts' is unknown to Triton's ModelInstanceGroup; did you mean 'count'?",
        "job.yaml:28: concurrency is the range 3:1:1, which is empty; start must not be above stop, step is 1 or more",
        "job.yaml:30: cpu_only is 'maybe'; use true or false",
        "job.yaml:32: min 5 is above max 2; lower the one or raise the other",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("profile_models: [a]\nbatch_sizes: 1\nbatch_sizes: 2\n", "job.yaml:5: key 'batch_sizes' stands twice; keep one of them"),
        ("profile_models: [a, a]\n", "job.yaml:3: profile_models names a twice; name a model once"),
        ("profile_models: []\n", "job.yaml:3: profile_models is empty; name at least one"),
        ("profile_models: 7\n", "job.yaml:3: profile_models is 7; use a list"),
        ("profile_models: [[a]]\n", "job.yaml:3: profile_models is a list; use a mapping"),
        ("profile_models: {a: 3}\n", "job.yaml:3: a is 3; use a mapping"),
        ("profile_models: [a]\nduration_seconds: true\n", "job.yaml:4: duration_seconds is true; use a number"),
        ("profile_models: [a]\nduration_seconds: .inf\n", "job.yaml:4: duration_seconds is inf; use a finite number"),
        ("profile_models: [a]\nbatch_sizes: [true]\n", "job.yaml:4: batch_sizes is true; use a number"),
        ("profile_models: [a]\nbatch_sizes: []\n", "job.yaml:4: batch_sizes is empty; give at least one number"),
        ("profile_models: [a]\nbatch_sizes: 1.5\n", "job.yaml:4: batch_sizes is 1.5; use an integer"),
        ("profile_models: [a]\nbatch_sizes: {start: 1}\n", "job.yaml:4: batch_sizes has the keys start; a range has start, stop and, if you like, step"),
        ("profile_models: [a]\nbatch_sizes: 1:99999999999:1\n", "job.yaml:4: batch_sizes is a range with a number above 2147483647; use smaller ones"),
        ("profile_models: [a]\nbatch_sizes: 99999999999\n", "job.yaml:4: batch_sizes is 99999999999; use 2147483647 or less"),
        ("profile_models: [a]\nexport_path: 7\n", "job.yaml:4: export_path is 7; use text (a number in quotes)"),
        ("profile_models: [a]\nclient_protocol: htp\n", "job.yaml:4: client_protocol is 'htp'; use 'http' or 'grpc'"),
        ("profile_models: [a]\ntriton_http_endpoint: localhost\n", "job.yaml:4: triton_http_endpoint is 'localhost'; use host:port"),
        ("profile_models: [a]\ntriton_metrics_url: localhost:8002\n", "job.yaml:4: triton_metrics_url is 'localhost:8002'; use http://host:port/metrics"),
        ("profile_models: [a]\nfilename_model_gpu: a/b.csv\n", "job.yaml:4: filename_model_gpu is 'a/b.csv'; use a plain file name, and export_path for the folder"),
        ("profile_models: [a]\nfilename_model_gpu: metrics-model-inference.csv\n", "job.yaml:4: filename_model_gpu is the name of another table, too; give each table a name of its own"),
        ("profile_models: [a]\nrequest_rate: 5\n", "job.yaml:4: concurrency and request_rate are both given; a load is the one or the other"),
        ("profile_models: [a]\ncpu_only: true\n", "job.yaml:4: unknown key 'cpu_only'; it belongs to a model, in profile_models"),
        ("profile_models:\n  a:\n    export_path: x\n", "job.yaml:5: unknown key 'export_path'; it holds for all models; move it to the top level"),
        ("profile_models:\n  a:\n    checkpoint_directory: x\n", "job.yaml:5: unknown key 'checkpoint_directory'; it holds for all models; move it to the top level"),
        ("profile_models: [a]\ntriton_server_flags: {log-verbose: [1]}\n", "job.yaml:4: log-verbose is a list; use one plain value"),
        ("profile_models: [a]\nobjectives: [perf_througput]\n", "job.yaml:4: metric 'perf_througput' is unknown; did you mean 'perf_throughput'?"),
        ("profile_models: [a]\ntriton_launch_mode: c_api\n", "job.yaml:4: not supported yet: triton_launch_mode c_api (the server as a library of the client); instead use embedded, local, docker or remote"),
        ("profile_models: [a]\ngenai_perf_flags: {streaming: true}\n", "job.yaml:4: not supported yet: genai_perf_flags (prompts made by GenAI-Perf); instead give the prompts as input-data in perf_analyzer_flags, and streaming there"),
        ("profile_models: [a]\nshared_memory: cuda\n", "job.yaml:4: shared_memory is cuda, which is not supported yet; use system: Triton copies it to the GPU"),
        ("profile_models: [a]\nshared_memory: [system]\n", "job.yaml:4: shared_memory is a list; use none or system"),
        ("profile_models: [a]\nperf_analyzer_flags: {shared-memory: cuda}\n", "job.yaml:4: shared-memory is cuda, which is not supported yet; use system: Triton copies it to the GPU"),
        ("profile_models: [a]\nperf_analyzer_flags: {output-shared-memory-size: 0}\n", "job.yaml:4: output-shared-memory-size is 0; use a number of bytes for one inference's output"),
        ("profile_models: [a]\nperf_analyzer_flags: {ssl-https-private-key-file: k.pem}\n", "job.yaml:4: ssl-https-private-key-file is given without ssl-https-client-certificate-file; give both: a client proves itself with the pair"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_where_what_and_how_to_mend_it(tmp_path: Path, text: str, expected: str) -> None:
    assert faults(tmp_path, HEAD + text) == [expected]


def test_a_name_with_a_line_break_leaves_the_fault_one_line(tmp_path: Path) -> None:
    assert faults(tmp_path, HEAD + 'profile_models: {"a\\nb": 3}\n') == ["job.yaml:3: a\\nb is 3; use a mapping"]


def test_a_huge_integer_is_a_fault_and_not_its_digits(tmp_path: Path) -> None:
    text = HEAD + "profile_models: [a]\nbatch_sizes: 0x" + "f" * 5000 + "\nmax_seconds: " + "9" * 5000 + "\n"
    first, second = faults(tmp_path, text)
    assert first == "job.yaml:4: batch_sizes is a huge integer; use 2147483647 or less"
    assert second == f"job.yaml:5: value '{'9' * 40}' is not what its form promises (too many digits); put it in quotes"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "job.yaml: is empty; name at least model_repository and profile_models"),
        (b"# nothing\n", "job.yaml: is empty; name at least model_repository and profile_models"),
        (b"- a\n- b\n", "job.yaml:1: is no mapping of keys to values; write `key: value` lines"),
        (b"just text\n", "job.yaml:1: is no mapping of keys to values; write `key: value` lines"),
        (b"a: caf\xe9\n", "job.yaml: is not UTF-8 text (byte 6); save it as UTF-8"),
        (b"profile_models:\n\t- a\n", "job.yaml:2: is indented with a tab, which YAML forbids; indent with spaces"),
        (b"a: [1, 2\nb: 3\n", "job.yaml:2: is no YAML: expected ',' or ']', but got ':'; mend the line or the one above it"),
        (b"a: 1\n---\nb: 2\n", "job.yaml:2: is no YAML: but found another document; mend the line or the one above it"),
        (b"profile_models: *nope\n", "job.yaml:1: is no YAML: found undefined alias 'nope'; mend the line or the one above it"),
        (b"a: " + b"[" * 5000, "job.yaml: is nested too deeply; write it flat"),
        (b"a: &a [*a]\n", "job.yaml: is nested too deeply, or refers to itself; write it flat"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_job_is_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    assert faults(tmp_path, content) == [expected]


def test_a_binary_file_is_no_yaml(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, b"\x7fELF\x02\x01\x00\x00" * 100)
    assert line.startswith("job.yaml: is no YAML: ")
    assert line.endswith("; save it as plain text")


@pytest.mark.parametrize(("name", "why"), [("nope.yaml", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(SpecError, match=f"cannot be read \\({why}\\)"):
        jobfile.load(tmp_path / name, {}, {}, {})


def test_aliases_that_stand_for_millions_of_values_are_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert faults(tmp_path, "\n".join(lines)) == [
        "job.yaml: stands for more than 100000 values; name less, or use fewer aliases (*name)"
    ]


def test_a_sweep_of_too_many_variants_or_phases_is_refused_before_it_is_made(tmp_path: Path) -> None:
    many = ", ".join(str(n) for n in range(1, 200))
    variants = f"profile_models:\n  a:\n    model_config_parameters:\n      max_batch_size: [{many}]\n      instance_group:\n        - kind: KIND_CPU\n          count: [{many}]\n"
    assert faults(tmp_path, HEAD + variants) == [
        "job.yaml:5: model_config_parameters makes 39601 variants; sweep less: 10000 are the most"
    ]
    phases = "model_repository: /m\nprofile_models: [a]\nbatch_sizes: 1:1000\nconcurrency: 1:1000\n"
    assert faults(tmp_path, phases) == ["job.yaml:2: the job has 1000000 phases; sweep less: 100000 are the most"]


# -- anchors, merge keys, variables --------------------------------------------------------------------


def test_anchors_and_merge_keys_work_and_keep_the_lines_of_what_they_stand_for(tmp_path: Path) -> None:
    text = """\
model_repository: /models
profile_models:
  a: &defaults
    parameters: {batch_sizes: [1, 2], concurrency: 4}
  b:
    <<: *defaults
    cpu_only: true
"""
    a, b = load(tmp_path, text).models()
    assert (a.batch_sizes, b.batch_sizes, b.cpu_only) == ((1, 2), (1, 2), True)
    # Once where it is written, although two models have it.
    assert faults(tmp_path, text.replace("[1, 2]", "[1, x]")) == ["job.yaml:4: batch_sizes is 'x'; use an integer"]


def test_variables_are_replaced_before_a_value_has_a_type(tmp_path: Path) -> None:
    text = """\
model_repository: ${ROOT}/models/${TEAM:-vision}
profile_models: ${MODELS}
batch_sizes: ${BATCHES:-1,4}
duration_seconds: ${SECONDS:-2}
collect_cpu_metrics: ${CPU:-true}
triton_docker_image: "${UNSET:-}x"
triton_server_environment: {PROMPT: "$${HOME}"}
concurrency: ${LOADS}
"""
    spec, warnings = read(tmp_path, text, {"ROOT": "/data", "MODELS": "a,b", "LOADS": "1:4", "SECONDS": "7"})
    assert spec.model_repository == "/data/models/vision"
    assert [model.name for model in spec.profile_models] == ["a", "b"]
    assert (spec.batch_sizes, spec.concurrency, spec.duration_seconds) == ((1, 4), (1, 2, 3, 4), 7)
    assert spec.triton_docker_image == "x"
    assert spec.triton_server_environment == {"PROMPT": "${HOME}"}
    assert not [warning for warning in warnings if "collect_cpu_metrics" in warning]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${NOPE}", "job.yaml:3: variable NOPE is not set; set it, or write ${NOPE:-default}"),
        ("[a, '${NOPE}']", "job.yaml:3: variable NOPE is not set; set it, or write ${NOPE:-default}"),
        ("'${A-b}'", "job.yaml:3: '${A-b}' is no variable; write ${VAR} or ${VAR:-default}; $${ stands for itself"),
        ("'${1X}'", "job.yaml:3: '${1X}' is no variable; write ${VAR} or ${VAR:-default}; $${ stands for itself"),
        ("'${A'", "job.yaml:3: '${A' is no variable; write ${VAR} or ${VAR:-default}; $${ stands for itself"),
        ("'${A:-${B}}'", "job.yaml:3: variable A has another one for a default; give a plain default"),
    ],
)
def test_a_variable_that_cannot_be_replaced_is_one_fault_and_no_other_follows(
    tmp_path: Path, value: str, expected: str
) -> None:
    assert faults(tmp_path, HEAD + f"profile_models: {value}\n") == [expected]


# -- the command line wins -----------------------------------------------------------------------------


def test_a_flag_wins_over_the_file_and_its_faults_name_the_flag(tmp_path: Path) -> None:
    text = HEAD + "profile_models: [a]\nbatch_sizes: nonsense\n"
    assert load(tmp_path, text, batch_sizes=["2", "4:6"]).batch_sizes == (2, 4, 5, 6)
    assert faults(tmp_path, text, batch_sizes=["0"]) == ["--batch-sizes: batch_sizes is 0; use 1 or more"]


def test_a_job_needs_no_file(tmp_path: Path) -> None:
    spec, _ = jobfile.load(None, {"profile_models": ["a"], "model_repository": "/m"}, {}, {})
    assert [model.name for model in spec.profile_models] == ["a"]


# -- answers by name -----------------------------------------------------------------------------------


def test_a_key_without_a_value_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    spec = load(tmp_path, HEAD + "profile_models: {a: , b: {parameters: }}\ngpus:\nduration_seconds:\n")
    assert (spec.gpus, spec.duration_seconds) == (("all",), 3.0)
    assert [model.name for model in spec.profile_models] == ["a", "b"]


def test_keys_without_effect_are_answered_with_their_line(tmp_path: Path) -> None:
    text = HEAD + "profile_models: [a]\ncheckpoint_directory: /tmp/x\nperf_analyzer_flags:\n  percentile: 95\n"
    _, warnings = read(tmp_path, text)
    assert warnings == [
        "job.yaml:4: checkpoint_directory has no effect: the store in export_path is the checkpoint; keep export_path: a rerun resumes from it",
        "job.yaml:6: perf_analyzer flag percentile has no effect: p50, p90, p95 and p99 are always measured; name them in inference_output_fields",
    ]


def test_keys_of_another_launch_mode_or_protocol_are_answered(tmp_path: Path) -> None:
    text = "profile_models: [a]\nconcurrency: 1\ntriton_launch_mode: remote\ntriton_docker_image: x\nperf_analyzer_flags: {ssl-https-verify-peer: 0}\n"
    _, warnings = read(tmp_path, text)
    assert warnings == [
        "job.yaml:4: triton_docker_image has no effect; it belongs to triton_launch_mode: docker",
        "job.yaml:5: ssl-https-verify-peer has no effect; client_protocol is grpc",
    ]


def test_flags_without_effect_are_answered_where_they_stand(tmp_path: Path) -> None:
    text = (
        "model_repository: /m\nconcurrency: 1\nprofile_models:\n  - a\n  - b:\n      perf_analyzer_flags:\n        --output_shared_memory_size: 9\n"
        "perf_analyzer_flags:\n  - request-distribution: poisson\n"
    )
    _, warnings = read(tmp_path, text)
    assert warnings == [
        "job.yaml:8: request-distribution has no effect; it spreads the requests of a request_rate, and there is none",
        "job.yaml:7: output-shared-memory-size has no effect; shared-memory is not system",
    ]


# -- anything at all -----------------------------------------------------------------------------------

_KEYS = sorted({*JobSpec.model_fields, *KEYS, "unknown_key", "<<"})
_MODEL_KEYS = sorted({*ModelSpec.model_fields, "genai_perf_flags", "unknown_key"})
_NUMBERS = st.one_of(
    st.integers(), st.integers(-3, 12), st.sampled_from([10**400, -(10**400), 2**31, 2**63]), st.floats()
)
_TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "all", "1,4", "1:8:2", "${X}", "${X:-1}", "$${X}", "${", "a:1", "http://x:1/m", "x:1", "\0", "true", "KIND_CPU", "INPUT:1,2", "perf_throughput"]),
)  # fmt: skip
_NAMES = st.one_of(
    _TEXT,
    st.sampled_from([*_KEYS, *_MODEL_KEYS, *PERF_FLAGS, *PERF_FLAGS_WORK, "start", "stop", "step", "min", "max", "batch_sizes",
                     "instance_group", "dynamic_batching", "count", "parameters", "version_policy", "perf_throughput"]),
)  # fmt: skip
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXT, st.dates(), st.binary(max_size=5))
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=3)),
    max_leaves=8,
)
MODELS = st.one_of(
    st.just(["a"]), VALUES, st.dictionaries(_TEXT, st.dictionaries(st.sampled_from(_MODEL_KEYS), VALUES, max_size=3), max_size=2)
)  # fmt: skip
JOBS = st.builds(
    lambda rest, models: {**rest, "profile_models": models},
    st.dictionaries(st.sampled_from(_KEYS), VALUES, max_size=4).map(lambda job: {"model_repository": "/m", **job}),
    MODELS,
)


def outcome(path: Path) -> str:
    try:
        spec, warnings = jobfile.load(path, {}, {"X": "2"}, {})
    except SpecError as error:
        lines = [str(fault) for fault in error.faults]
        return "\n".join(lines) if lines and not any("\n" in line for line in lines) else pytest.fail(repr(lines))
    groups = plan(spec.models(), spec.client_protocol, {}, {})
    return f"{spec!r} {warnings} {[phase.id for group in groups for phase in group.phases]}"


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(JOBS)
def test_any_value_for_any_key_is_a_job_or_a_spec_error_and_always_the_same(
    tmp_path: Path, job: dict[str, Any]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job, allow_unicode=True), encoding="utf-8")
    assert outcome(path) == outcome(path)


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.one_of(st.binary(max_size=60), st.text(alphabet=" \t\n:-[]{}&*!|>'\"%@`#,?a1${}<", max_size=60).map(str.encode))
)
def test_any_bytes_are_a_job_or_a_spec_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    assert outcome(path) == outcome(path)


def test_a_range_without_quotes_is_a_range_and_not_a_number_of_base_60(tmp_path: Path) -> None:
    text = "model_repository: /m\nprofile_models: [a]\nconcurrency: 1:16:5\nbatch_sizes: 1:4\n"
    spec = load(tmp_path, text)
    assert (spec.concurrency, spec.batch_sizes) == ((1, 6, 11, 16), (1, 2, 3, 4))
