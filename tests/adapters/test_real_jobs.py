"""Job files as users of Triton Model Analyzer have them: each loads, plans as expected, and its editor's schema agrees."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from model_analyzer.adapters import jobfile
from model_analyzer.adapters.reference import render_schema
from model_analyzer.core.keys import KEYS
from model_analyzer.core.load import InputSource, Load, Tls
from model_analyzer.core.plan import plan
from model_analyzer.core.spec import JobSpec
from model_analyzer.errors import SpecError

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "tests" / "data" / "jobs"
SCHEMA = jsonschema.Draft202012Validator(json.loads(render_schema()))


def load(name: str, environ: dict[str, str] | None = None) -> tuple[JobSpec, list[str]]:
    path = JOBS / f"{name}.yaml"
    spec, warnings = jobfile.load(path, {}, environ or {}, {})
    return spec, [str(warning).removeprefix(f"{path}:") for warning in warnings]


def rows(spec: JobSpec) -> list[str]:
    groups = plan(spec.models(), spec.client_protocol, {}, {})
    return [str(phase) for group in groups for phase in group.phases]


def test_a_quick_look_at_a_remote_server() -> None:
    spec, warnings = load("remote_quick_look")
    assert rows(spec) == [
        f"{model}_config_default batch {batch} concurrency {load}"
        for model in ("resnet50_libtorch", "bert_large")
        for batch in (1, 8)
        for load in range(2, 17, 2)
    ]
    assert (spec.client_protocol, spec.client_max_retries, spec.reload_model_disable) == ("grpc", 120, True)
    assert spec.triton_metrics_url == "http://triton.inference.svc:8002/metrics"
    assert load("remote_quick_look", {"TRITON_HOST": "10.0.0.7"})[0].triton_grpc_endpoint == "10.0.0.7:8001"
    assert [warning.split(" ")[1] for warning in warnings] == [
        "checkpoint_directory",
        "override_output_model_repository",
    ]


def test_a_manual_sweep_over_model_configs() -> None:
    spec, _ = load("manual_sweep")
    groups = plan(spec.models(), spec.client_protocol, {}, {})
    classifier, tokenizer = spec.models()
    names = [f"classifier_config_{n}" for n in ("default", *range(12))]
    assert [group.variant.name for group in groups] == [*names, "tokenizer_config_default"]
    assert groups[1].variant.overrides == {
        "instance_group": [{"kind": "KIND_GPU", "count": 1}],
        "dynamic_batching": {"max_queue_delay_microseconds": 100},
        "max_batch_size": 8,
    }
    assert groups[2].variant.overrides["max_batch_size"] == 16
    assert groups[-1].variant.overrides == {"instance_group": [{"kind": "KIND_CPU"}]}
    assert len(groups[0].phases) == 6
    assert classifier.server.flags == (("log-verbose", "true"), ("exit-timeout-secs", "120"))
    assert classifier.server.environment == (("LD_PRELOAD", "/opt/plugins/custom_ops.so"), ("OMP_NUM_THREADS", "4"))
    assert (classifier.weighting, classifier.constraints) == (2, {"perf_latency_p99": {"max": 100}})
    assert tokenizer.input_source == InputSource(shapes=(("TEXT", (1,)),), string_length=64)
    assert spec.gpus == ("GPU-5bd0bb4d-0d7a-4b52-91a8-92a8f0f7e2a1",)


def test_request_rates() -> None:
    spec, _ = load("request_rate")
    (ranker,) = spec.models()
    assert ranker.loads == tuple(Load("request_rate", rate, "poisson") for rate in (100, 200, 300, 400, 500))
    assert ranker.input_source == InputSource("file", "/data/ranker.json")
    assert ranker.constraints == {"perf_latency_p99": {"max": 25}, "perf_throughput": {"min": 300}}
    assert "request_rate" in spec.gpu_output_fields
    assert "concurrency" not in spec.inference_output_fields


def test_tls_with_client_certificates() -> None:
    spec, warnings = load("tls")
    (model,) = spec.models()
    assert model.tls == Tls("/certs/ca.crt", "/certs/client.crt", "/certs/client.key")
    assert warnings == []


def test_columns_and_file_names() -> None:
    spec, warnings = load("output_fields")
    detector, segmenter = spec.models()
    assert spec.inference_output_fields[-1] == "cpu_used_ram"
    assert len(spec.gpu_output_fields) == 8
    assert (spec.filename_model_inference, spec.filename_server_only) == ("inference.csv", "server.csv")
    assert detector.constraints == segmenter.constraints
    assert (detector.input_source.mode, segmenter.input_source.mode) == ("random", "zero")
    assert detector.server.flags == (("strict-readiness", "false"), ("rate-limit", "execution_count"))
    assert warnings == []


# -- the schema ----------------------------------------------------------------------------------------


def code_blocks() -> list[Any]:
    """Every YAML block of the docs that is a job or a part of one; those marked as the chart's values are not."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for n, block in enumerate(
            re.findall(r"(?<!<!-- values -->\n)^```ya?ml\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
        ):
            keys = yaml.safe_load(block)
            if isinstance(keys, dict) and keys.keys() & {*JobSpec.model_fields, *KEYS}:
                found.append(pytest.param(block, id=f"{page.name}-{n}"))
    return found


def job_files() -> list[Path]:
    candidates = [*sorted((ROOT / "examples").rglob("*.y*ml")), *sorted(JOBS.glob("*.yaml"))]
    return [path for path in candidates if "\nprofile_models:" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", job_files(), ids=lambda path: path.stem)
def test_job_files_are_valid_by_the_schema_and_load(path: Path) -> None:
    SCHEMA.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    jobfile.load(path, {}, {}, {})


@pytest.mark.parametrize("block", code_blocks())
def test_jobs_in_the_docs_are_valid_by_the_schema_and_load(block: str, tmp_path: Path) -> None:
    rest = {"profile_models": ["any"], "model_repository": "/models"}  # a part of a job leaves them out
    values = {**rest, **yaml.safe_load(block)}
    SCHEMA.validate(values)
    path = tmp_path / "job.yaml"
    path.write_text(block, encoding="utf-8")
    jobfile.load(path, {key: values[key] for key in rest}, {}, {})


def test_there_are_jobs_to_check() -> None:
    assert len(job_files()) >= 6
    assert code_blocks()


@pytest.mark.parametrize(
    "text",
    [
        "profile_models: [a]\nmodel_repositry: /m\n",
        "profile_models: [a]\nmodel_repository: /m\nmin_seconds: soon\n",
        "profile_models: [a]\nmodel_repository: /m\nclient_protocol: udp\n",
        "profile_models: {a: {batch_sizes: 1}}\nmodel_repository: /m\n",
        "profile_models: [a]\nmodel_repository: /m\ngenai_perf_flags: {streaming: true}\n",
        "profile_models: [a]\nmodel_repository: /m\nbatch_sizes: {start: 1, stop: 2, stride: 1}\n",
        "model_repository: /m\n",
    ],
)
def test_what_the_schema_refuses_is_refused_here_too(text: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    assert not SCHEMA.is_valid(yaml.safe_load(text))
    with pytest.raises(SpecError):
        jobfile.load(path, {}, {}, {})
