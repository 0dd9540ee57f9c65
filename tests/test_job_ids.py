"""What the id of a phase is made of, by which a run goes on with what it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_analyzer.job import load_job


def ids(tmp_path: Path, **values: object) -> list[str]:
    path = tmp_path / "job.yaml"
    path.write_text("profile_models: [a]\ntriton_launch_mode: remote\n")
    return load_job(path, values, {}).phase_ids


@pytest.mark.parametrize(
    ("key", "url"),
    [("dcgm_exporter_url", "http://{}h:9400/metrics"), ("triton_metrics_url", "http://{}h:8002/metrics")],
)
def test_a_new_password_measures_nothing_anew(tmp_path: Path, key: str, url: str) -> None:
    plain, first, second = (ids(tmp_path, **{key: url.format(who)}) for who in ("", "joe:old@", "joe:new@"))
    assert plain == first == second
    assert ids(tmp_path, **{key: url.format("other.")}) != plain
