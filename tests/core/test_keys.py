"""Every name of Triton Model Analyzer 1.58 is known here: a key of the job spec, or answered by name.

The names are frozen in tests/data, with their source.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_analyzer.cli.flags import ANSWERED, FLAGS
from model_analyzer.core.keys import KEYS, MODE_KEYS, PERF_FLAGS, PERF_FLAGS_WORK, Key
from model_analyzer.core.spec import JobSpec, ModelSpec

NAMES = json.loads((Path(__file__).parent.parent / "data" / "model_analyzer_1.58.json").read_text())
PROFILE_KEYS = NAMES["profile_keys"]
REPORT_KEYS = NAMES["report_keys"]
MA_PERF_FLAGS = NAMES["perf_flags"]
PROFILE_FLAGS = NAMES["profile_flags"]
SWITCHES = NAMES["switches"]
MODEL_KEYS = NAMES["model_keys"]


def test_every_key_is_a_field_or_answered_by_name_and_never_both() -> None:
    names = {*PROFILE_KEYS, *REPORT_KEYS}
    assert len(names) > 70
    assert names - set(JobSpec.model_fields) - set(KEYS) == set()
    assert set(JobSpec.model_fields) & set(KEYS) == set()
    assert set(KEYS) - names == set(), "an answer to a key that nobody can have written"


def test_every_key_of_a_model_is_a_field_or_answered_by_name() -> None:
    assert set(MODEL_KEYS) - set(ModelSpec.model_fields) == {"genai_perf_flags"} <= set(KEYS)


def test_every_flag_of_perf_analyzer_works_or_is_answered_by_name() -> None:
    # What perf_analyzer 2.60 itself has besides: its own usage text, and enable-mpi, which that leaves out.
    own = {
        "request-count", "warmup-request-count", "endpoint", "data-directory", "enable-mpi", "fixed-schedule",
        "grpc-method", "input-tensor-format", "log-frequency", "output-tensor-format", "periodic-concurrency-range",
        "profile-export-file", "request-parameter", "request-period", "sequence-length-variation", "serial-sequences",
        "session-concurrency", "trace-count", "trace-level", "trace-rate", "version",
    }  # fmt: skip
    assert {*MA_PERF_FLAGS, *own} == {*PERF_FLAGS, *PERF_FLAGS_WORK}
    assert set(PERF_FLAGS) & set(PERF_FLAGS_WORK) == set()


def test_every_flag_has_the_same_name_and_the_same_short_form() -> None:
    ours = {flag.names for flag in (*FLAGS, *ANSWERED)} | {("-f", "--config-file")}
    ours.add(("--profile-models",))  # `-n` is ours besides
    assert {tuple(one.split(",")) for one in PROFILE_FLAGS} - ours == set()


def test_flags_without_a_value_have_none_here_either() -> None:
    kinds = {flag.key: flag.kind for flag in (*FLAGS, *ANSWERED)}
    assert {key for key in PROFILE_KEYS if kinds.get(key) == "switch"} == set(SWITCHES)


def test_no_flag_is_spelled_like_another() -> None:
    names = [name for flag in (*FLAGS, *ANSWERED) for name in flag.names] + ["-f", "--config-file", "-h", "-v", "-q"]
    assert len(names) == len(set(names))


def test_keys_of_a_launch_mode_are_keys() -> None:
    assert {key for keys in MODE_KEYS.values() for key in keys} <= set(JobSpec.model_fields)


@pytest.mark.parametrize(
    ("key", "value", "search_disabled", "expected"),
    [
        ("model_type", "generic", False, None),
        ("model_type", "LLM", False, None),
        ("genai_perf_flags", {"streaming": "true"}, False, "fault"),
        ("run_config_search_mode", "brute", False, None),
        ("run_config_search_mode", "quick", False, "fault"),
        ("run_config_search_max_instance_count", 3, False, "fault"),
        ("run_config_search_max_instance_count", 3, True, "warning"),
        ("run_config_search_disable", True, True, None),
        ("bls_composing_models", [], False, None),
        ("bls_composing_models", ["a"], True, "fault"),
        ("checkpoint_directory", "x", False, "warning"),
        ("request_rate_search_enable", False, False, None),
    ],
)
def test_what_changes_the_measurement_is_refused_and_plumbing_draws_a_warning(
    key: str, value: object, search_disabled: bool, expected: str | None
) -> None:
    assert KEYS[key].answer(value, search_disabled) == expected


@pytest.mark.parametrize("key", [*KEYS.values(), *PERF_FLAGS.values()], ids=lambda key: key.name)
def test_every_answer_says_why_and_what_instead(key: Key) -> None:
    assert key.why
    assert key.instead
    assert not key.why.endswith(".")
