"""The generated pages hold everything that they describe, and the checked-in ones are up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_analyzer.adapters.reference import render_job_spec, render_metrics, render_schema
from model_analyzer.core.keys import KEYS, PERF_FLAGS, PERF_FLAGS_WORK
from model_analyzer.core.metric import COLUMNS, METRICS
from model_analyzer.core.spec import JobSpec, ModelSpec
from scripts import reference as script

ROOT = Path(__file__).parents[2]


def test_the_job_spec_page_has_every_key_and_flag() -> None:
    page = render_job_spec()
    names = [*JobSpec.model_fields, *ModelSpec.model_fields, *KEYS, *PERF_FLAGS, *PERF_FLAGS_WORK]
    assert [name for name in names if f"`{name}`" not in page and name != "name"] == []


def test_the_metrics_page_has_every_tag_and_header() -> None:
    page = render_metrics()
    rows = [*METRICS.values(), *COLUMNS.values()]
    assert [row.tag for row in rows if f"| `{row.tag}` | {row.header} |" not in page] == []


def test_the_schema_has_every_key_with_a_description() -> None:
    properties = json.loads(render_schema())["properties"]
    assert set(properties) == {*JobSpec.model_fields, *KEYS}
    assert [name for name, value in properties.items() if not value.get("description")] == []


def test_every_table_row_has_as_many_cells_as_its_head() -> None:
    for page in (render_job_spec(), render_metrics()):
        cells = None
        for line in page.splitlines():
            if not line.startswith("|"):
                cells = None
                continue
            count = line.replace("\\|", "").count("|")
            assert cells in (None, count), line
            cells = count


@pytest.mark.parametrize("name", script.PAGES)
def test_a_checked_in_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == script.PAGES[name](), "run `make docs`"


def test_the_check_fails_and_names_the_page_that_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["reference"])
    script.main()
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    with pytest.raises(SystemExit) as fine:
        script.main()
    assert fine.value.code == 0
    (tmp_path / "cli.md").write_text("old")
    with pytest.raises(SystemExit) as stale:
        script.main()
    assert stale.value.code == "out of date, run `make docs`: cli.md"


def test_make_check_checks_them() -> None:
    shown = subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    assert "scripts.reference --check" in shown.stdout
