"""docs/benchmarks.md is what its JSON gives, and says what was and was not measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import UNFINISHED, keeper, load, main, save
from bench.versus import cost, page, quiet, sweep

DOCS = Path(__file__).resolve().parents[2] / "docs"

PART = {
    "taken": "2026-01-01T00:00:00+00:00", "seconds": 600.0, "quick": False, "anyway": False,
    "load_before": {"busy_cores": 0.01, "stolen_cores": 0.0, "load_average": 0.1, "by": []},
    "machine": {"cpu": "Some CPU", "cores": 2, "hypervisor": True, "memory_gb": 8.0, "kernel": "6.1", "distribution": "Debian"},
    "versions": {"model-analyzer": "0.1.0", "perf_analyzer": "2.60.0", "magika": None},
}  # fmt: skip


def cost_part(ratio: float, plan: cost.Plan = cost.COST) -> dict[str, Any]:
    """As measured: ours needs `ratio` of theirs."""
    runs = []
    for place in cost.schedule(plan):
        share = ratio if place["side"] == cost.OURS else 1.0
        values = {"cpu_us": 200 * share, "generator_us": 200 * share, "kernel_us": 50.0, "steady_us": 100 * share, "throughput": 1000 / share,
                  "p50_us": 500 * share, "server_per_s": 1000 / share, "others_cores": 0.02}  # fmt: skip
        runs.append({**place, **values})
    return {**PART, "settings": plan.settings(), "runs": runs}


def sweep_part(seconds: dict[str, float]) -> dict[str, Any]:
    """Our settings take so long, theirs 45 s; our rows vary by 2 %, theirs by 4 %."""
    runs = []
    for place in sweep.schedule(4, dict.fromkeys(sweep.CURVE_SWEEPS, 1)):
        mine = place["side"] == sweep.OURS
        wall_s = seconds.get(place["setting"], 50.0) if mine else 45.0
        swing = (0.02 if mine else 0.04) * (1 if place["round"] % 2 else -1)
        rows = {"add_sub, batch 1, concurrency 1": 1000 * (1 + swing)}
        runs.append({**place, "wall_s": wall_s, "table_s": wall_s, "cpu_s": 3.0, "rows": rows})
    return {**PART, "settings": {}, "runs": runs}


def document(**parts: dict[str, Any]) -> dict[str, Any]:
    return {"format": 1, "parts": parts}


def test_the_committed_page_is_what_the_committed_json_gives() -> None:
    stale = "run `python -m bench --render`: docs/benchmarks.md is made from docs/benchmarks.json"
    assert page.render(load(DOCS)) == (DOCS / "benchmarks.md").read_text(encoding="utf-8"), stale


def test_before_a_run_the_page_has_no_figure() -> None:
    text = page.render(document())
    assert "No run is committed yet" in text
    assert "## Goals" not in text


def test_every_goal_against_perf_analyzer_has_its_row() -> None:
    text = page.render(document(cost=cost_part(0.3), payload=cost_part(0.3, cost.PAYLOAD)))
    for protocol in ("HTTP", "gRPC"):
        for concurrency in (1, 8, 64):
            where = f"{protocol}, c = {concurrency}"
            assert re.search(
                rf"\| CPU a request, {where}: whole tool / `perf_analyzer` \| ≤ [\d.]+ \| 0.3 \| 0.3 \| met \|", text
            )
            assert f"| throughput, {where} / `perf_analyzer` | ≥ 1 | 3.33 | 3.33 | met |" in text
            assert f"| p50, {where} / `perf_analyzer` | ≤ 1 | 0.3 | 0.3 | met |" in text
    assert "| CPU a request, gRPC, c = 8: whole tool / `perf_analyzer --async` | ≤ 0.5 | 0.3 | 0.3 | met |" in text
    assert "| throughput, 602 kB, HTTP, c = 4 | ≥ 1.2 | 3.33 | 3.33 | met |" in text
    assert "Nothing of what was run." in text


def test_a_missed_goal_is_listed_with_how_much() -> None:
    text = page.render(document(cost=cost_part(0.44)))
    assert "- CPU a request, HTTP, c = 64: whole tool / `perf_analyzer`: missed by 10%." in text
    assert "CPU a request, HTTP, c = 8: whole tool / `perf_analyzer`: missed" not in text


def test_a_failed_run_is_no_pair_and_is_told() -> None:
    part = cost_part(0.3)
    broken = part["runs"][0]
    part["runs"][0] = {key: broken[key] for key in ("protocol", "concurrency", "round", "side")} | {"error": "it died"}
    text = page.render(document(cost=part))
    assert f"**1 of {len(part['runs'])} runs failed**, the first: it died" in text
    assert "| CPU a request, HTTP, c = 1: whole tool / `perf_analyzer` | ≤ 0.6 | 0.3 | 0.3 | met |" in text


def test_the_sweep_is_judged_at_the_longest_setting_that_is_fast_enough() -> None:
    slow = sweep_part({"0.5 s a row": 10.0, "1.3 s a row": 20.0})
    fast = sweep_part({"0.5 s a row": 10.0, "1.3 s a row": 14.0})
    assert page.at_speed(slow["runs"]) == "0.5 s a row"
    assert page.at_speed(fast["runs"]) == "1.3 s a row"
    text = page.render(document(sweep=fast))
    assert (
        "| 8-row sweep, time to the table: 1.3 s a row / Triton Model Analyzer | ≤ 0.333 | 0.311 | 0.311 | met |"
        in text
    )
    assert "| add_sub, batch 1, concurrency 1 | 2.31 % | 4.62 % | ours | 4 / 4 |" in text


def test_a_goal_that_is_too_slow_everywhere_is_missed() -> None:
    part = sweep_part({"0.5 s a row": 18.0, "1.3 s a row": 20.0})
    assert "time to the table: 0.5 s a row / Triton Model Analyzer: missed by 20%" in page.render(document(sweep=part))


def test_figures_without_a_rival_stand_with_the_others() -> None:
    figures = [
        {"name": "RSS with 10,000 phases", "value": 120.0, "unit": "MB", "goal": 150, "met": True},
        {"name": "tables", "value": None, "unit": "s", "goal": "< 2 s", "met": None},
        {"name": "`--help`", "value": 0.5, "unit": "s", "goal": 0.3, "met": False},
    ]
    runs = [{"module": "store_scale", "seconds": 30.0, "figures": figures}, {"module": "capacity", "error": "it died"}]
    text = page.render(document(own={**PART, "settings": {}, "runs": runs}))
    assert "| RSS with 10,000 phases | 150 | 120 MB |  | met |" in text
    assert "| tables | < 2 s | - |  | not judged |" in text
    assert "- `--help`." in text
    assert "failed: it died" in text


@pytest.mark.parametrize(
    ("key", "said"), [("quick", "Its figures are worth nothing"), ("anyway", "beside other load, as asked")]
)
def test_a_run_that_proves_little_says_so_at_the_top(key: str, said: str) -> None:
    part = {**cost_part(0.3), key: True}
    assert said in page.render(document(cost=part)).split("## Goals")[0]


def test_load_that_came_up_during_a_run_is_told() -> None:
    part = cost_part(0.3)
    part["runs"][3]["others_cores"] = 0.9
    warned = page.render(document(cost=part)).split("## Goals")[0]
    assert f"**Other load came up in 1 of {len(part['runs'])} runs (cost), 0.9 cores at most.**" in warned
    assert "Other load came up" not in page.render(document(cost=cost_part(0.3)))


def test_parts_of_different_machines_are_not_taken_for_one() -> None:
    other = {**sweep_part({}), "machine": {**PART["machine"], "cpu": "Another CPU"}}  # type: ignore[dict-item]
    text = page.render(document(cost=cost_part(0.3), sweep=other))
    assert "| parts cost |" in text
    assert "| parts sweep |" in text
    assert "Another CPU, a virtual machine" in text


def test_tools_take_turns_and_swap() -> None:
    sides = [place["side"] for place in cost.schedule(cost.PAYLOAD)]
    a_round = len(sides) // cost.PAYLOAD.rounds
    first, second = sides[:2], sides[a_round : a_round + 2]
    assert first == [cost.OURS, cost.SYNC]
    assert second == [cost.SYNC, cost.OURS]


def test_a_part_that_was_run_again_replaces_only_itself(tmp_path: Path) -> None:
    save(tmp_path, document(cost=cost_part(0.3)))
    found = load(tmp_path)
    found["parts"]["sweep"] = sweep_part({})
    save(tmp_path, found)
    assert set(json.loads((tmp_path / "benchmarks.json").read_text())["parts"]) == {"cost", "sweep"}
    assert main(["--render", "--output", str(tmp_path)]) == 0


def test_an_interrupted_part_leaves_its_runs_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "docs" / UNFINISHED
    keep = keeper(file, "cost")
    keep({"side": cost.OURS, "cpu_us": 50.0})
    keep({"side": cost.SYNC, "cpu_us": 90.0})
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(run["part"], run["side"], run["cpu_us"]) for run in kept] == [
        ("cost", cost.OURS, 50.0),
        ("cost", cost.SYNC, 90.0),
    ]
    keeper(file, "sweep")
    assert not file.exists()


def test_the_minutes_that_are_announced_are_those_that_it_took() -> None:
    for name, part in load(DOCS)["parts"].items():
        assert part["seconds"] / 60 / 1.5 < page.MINUTES[name] < part["seconds"] / 60 * 1.5, name


def test_other_load_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.__main__.install", lambda *_: None)
    monkeypatch.setattr(quiet, "watch", lambda: quiet.Load(1.0, 0.0, 1.0, (("make (7)", 0.98),)))
    assert main(["cost", "--output", str(tmp_path)]) == 1
    assert (
        "cost: not run: other load uses 1.00 cores (make (7) 0.98); end it, or say --anyway" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_a_part_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["costs"])
    assert "no such part: costs; there are cost, sweep, payload, own" in capsys.readouterr().err
