"""A job with an open loop: from its keys, or perf_analyzer's own flags, to the loads and what a phase's id is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_analyzer.errors import SpecError
from model_analyzer.job import Job, load_job

QUICK_START = Path(__file__).parent.parent / "examples" / "quickstart" / "job.yaml"
BASE = "model_repository: models\ntriton_launch_mode: embedded\n"


def job(tmp_path: Path, text: str, **values: Any) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text(BASE + text)
    return load_job(path, values, {})


@pytest.fixture
def intervals(tmp_path: Path) -> Path:
    path = tmp_path / "intervals.txt"
    path.write_text("100000\n200000\n500000\n")
    return path


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        job(tmp_path, text)
    return [fault.what for fault in error.value.faults]


def test_a_file_of_intervals_makes_one_load_of_its_mean_rate(tmp_path: Path, intervals: Path) -> None:
    made = job(tmp_path, f"profile_models: [a]\nrequest_intervals: {intervals}\nmax_concurrency: 4\nramp_seconds: 2\n")
    ((phase,),) = [group.phases for group in made.groups]
    assert str(phase.load) == "request_rate 3.75"
    assert (phase.load.max_concurrency, phase.load.ramp_s) == (4, 2.0)
    assert made.intervals_ns[phase.load.intervals] == (100_000_000, 200_000_000, 500_000_000)
    # The tables have its rate, and no column for a concurrency that no row has.
    assert "request_rate" in made.spec.inference_output_fields
    assert "concurrency" not in made.spec.inference_output_fields


def test_perf_analyzers_own_flags_do_the_same(tmp_path: Path, intervals: Path) -> None:
    by_key = job(tmp_path, f"profile_models: [a]\nrequest_intervals: {intervals}\nrequest_count: 50\n")
    flags = f"{{request-intervals: {intervals}, request-count: 50}}"
    by_flag = job(tmp_path, f"profile_models: [a]\nperf_analyzer_flags: {flags}\n")
    of_a_model = job(tmp_path, f"profile_models: {{a: {{perf_analyzer_flags: {flags}}}}}\nconcurrency: 4\n")
    assert by_key.phase_ids == by_flag.phase_ids == of_a_model.phase_ids
    assert of_a_model.spec.models()[0].request_count == 50
    assert "request_rate" in of_a_model.spec.inference_output_fields


def test_intervals_are_known_by_their_content(tmp_path: Path, intervals: Path) -> None:
    text = f"profile_models: [a]\nrequest_intervals: {intervals}\n"
    before = job(tmp_path, text).phase_ids
    other = tmp_path / "other.txt"
    other.write_text("1e5\n2e5\n5e5\n")
    assert job(tmp_path, text.replace("intervals.txt", "other.txt")).phase_ids == before
    intervals.write_text("200000\n100000\n500000\n")
    assert job(tmp_path, text).phase_ids != before


@pytest.mark.parametrize("change", ["max_concurrency: 4", "ramp_seconds: 1", "request_count: 100"])
def test_what_bends_the_load_is_part_of_the_phase(tmp_path: Path, change: str) -> None:
    text = "profile_models: [a]\nrequest_rate: 10\n"
    assert job(tmp_path, f"{text}{change}\n").phase_ids != job(tmp_path, text).phase_ids


def test_a_model_with_a_load_of_its_own_does_not_take_the_file(tmp_path: Path, intervals: Path) -> None:
    made = job(
        tmp_path, f"profile_models: {{a: {{parameters: {{concurrency: 2}}}}, b: }}\nrequest_intervals: {intervals}\n"
    )
    assert [str(group.phases[0].load) for group in made.groups] == ["concurrency 2", "request_rate 3.75"]


def test_every_wrong_line_of_the_file_is_told(tmp_path: Path, intervals: Path) -> None:
    intervals.write_text("1\nx\n-2\n")
    assert faults(tmp_path, f"profile_models: [a]\nrequest_intervals: {intervals}\n") == [
        "'x' is no number",
        "the interval is -2",
    ]


def test_two_loads_at_once_are_a_fault(tmp_path: Path, intervals: Path) -> None:
    a_file, flag = f"request_intervals: {intervals}\n", f"{{request-intervals: {intervals}}}"
    models = "profile_models: [a]\n"
    assert faults(tmp_path, f"{models}{a_file}request_rate: 5\n") == [
        "request_rate and request_intervals are both given"
    ]
    assert faults(tmp_path, f"{models}concurrency: 5\nperf_analyzer_flags: {flag}\n") == [
        "concurrency and request-intervals are both given"
    ]
    own = f"profile_models: {{a: {{parameters: {{request_rate: 2}}, perf_analyzer_flags: {flag}}}}}\n"
    assert faults(tmp_path, own) == ["request_rate and request-intervals are both given"]


def test_a_limit_without_an_open_loop_is_a_fault(tmp_path: Path) -> None:
    (what,) = faults(tmp_path, "profile_models: [a]\nconcurrency: 2\nmax_concurrency: 4\n")
    assert what.startswith("max_concurrency has no effect")


def test_a_count_of_requests_says_which_keys_it_overrules(tmp_path: Path) -> None:
    made = job(tmp_path, "profile_models: [a]\nconcurrency: 2\nrequest_count: 100\nmax_seconds: 20\nprecision: 0.1\n")
    assert [warning.what for warning in made.warnings] == ["max_seconds ends no phase", "precision ends no phase"]


def test_a_ramp_takes_time_in_the_estimate() -> None:
    plain = load_job(QUICK_START, {"triton_launch_mode": "embedded"}, {})
    ramped = load_job(QUICK_START, {"triton_launch_mode": "embedded", "ramp_seconds": 2.0}, {})
    assert ramped.estimate_s() > 2 * plain.estimate_s()
