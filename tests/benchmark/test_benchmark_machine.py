"""What the benchmark sees of the machine: other load, CPU of a process tree, where libraries come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.versus import own, rivals, spent
from bench.versus.machine import cpu_model
from bench.versus.quiet import Load, Mark, others, read_stat
from bench.versus.spent import CommandError, Sample, steady


def test_other_load_is_refused_by_name() -> None:
    problem = Load(0.9, 0.0, 0.5, (("make (12)", 0.85),)).problem()
    assert problem == "other load uses 0.90 cores (make (12) 0.85)"


def test_a_hypervisor_that_takes_cores_is_refused() -> None:
    assert "hypervisor" in (Load(0.02, 0.3, 0.5, ()).problem() or "")


def test_a_quiet_machine_with_a_high_load_average_is_not() -> None:
    assert Load(0.02, 0.0, 9.0, ()).problem() is None


def test_busy_is_what_processes_ran_but_not_idle_interrupts_nor_stolen() -> None:
    #       user nice system idle iowait irq softirq steal guest guest_nice
    assert read_stat("cpu  100 10 50 1000 40 5 5 30 20 0\ncpu0 1\n", 100) == (1.6, 0.3)


def test_others_are_what_server_client_and_benchmark_do_not_explain() -> None:
    before, after = Mark(at_s=10.0, busy_s=100.0, known_s=20.0), Mark(at_s=20.0, busy_s=118.0, known_s=27.0)
    assert others(before, after, client_cpu_s=6.0) == 0.5
    assert others(before, after, client_cpu_s=12.0) == 0.0


def test_the_cpus_name_is_found() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n") == "Some CPU @ 2 GHz"
    assert cpu_model("") is None


BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"


def test_the_cpu_of_what_a_command_starts_counts_and_is_told_apart(tmp_path: Path) -> None:
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN.format(0.6)!r}])\n{BURN.format(0.3)}"
    found = spent.run([sys.executable, "-c", code], tmp_path / "log", timeout_s=60)
    assert found.cpu_s >= 0.9
    assert 0.6 <= found.children_cpu_s <= found.cpu_s - 0.2


def test_the_tree_is_watched_while_it_runs(tmp_path: Path) -> None:
    counts = iter(range(0, 1000, 10))
    found = spent.run([sys.executable, "-c", BURN.format(0.5)], tmp_path / "log", 60, lambda: next(counts))
    assert found.samples
    assert all(sample.count % 10 == 0 for sample in found.samples)


def test_a_failure_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"ended with 3: no such model; see .*log"):
        spent.run([sys.executable, "-c", "import sys; print('no such model'); sys.exit(3)"], tmp_path / "log", 60)


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="was ended after 1 s"):
        spent.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", 1)


def test_the_steady_part_leaves_out_start_up_and_end() -> None:
    samples = [
        Sample(0.0, 0.0, 0), Sample(1.0, 1.0, 0),  # starting
        Sample(2.0, 1.5, 500), Sample(3.0, 1.6, 1500), Sample(4.0, 1.7, 2500), Sample(5.0, 1.8, 3500),
        Sample(6.0, 1.9, 4000), Sample(7.0, 2.9, 4000),  # ending
    ]  # fmt: skip
    found = steady(samples)
    assert found is not None
    assert found == (pytest.approx(100.0), pytest.approx(1000.0))


def test_too_few_samples_have_no_steady_part() -> None:
    assert steady([Sample(float(n), 0.1 * n, 100 * n) for n in range(5)]) is None


DEB822 = """\
Types: deb
# http://elsewhere.example/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
"""


def test_the_mirror_is_the_one_that_apt_has_the_release_from() -> None:
    assert rivals.own_mirror([DEB822], "bookworm") == "http://mirror.example/debian"
    line = "# deb http://no.example/ubuntu jammy main\ndeb [arch=amd64] https://one.example/ubuntu/ jammy main\n"
    assert rivals.own_mirror(["deb https://other.example cloud main\n", line], "jammy") == "https://one.example/ubuntu"
    assert rivals.own_mirror([DEB822], "trixie") is None


def test_a_program_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    assert rivals._answers(program) is None
    program.write_text("#!/bin/sh\necho 'Perf Analyzer Version 9.9 (commit 1)' >&2\n")
    program.chmod(0o755)
    assert rivals._answers(program) == "Perf Analyzer Version 9.9 (commit 1)"


def test_what_has_no_rival_must_return_figures() -> None:
    figure = {"name": "RSS", "value": None, "unit": "MB", "goal": 150}
    assert own.checked({"figures": [figure]}) == {"figures": [figure], "raw": None}
    for wrong in ({}, {"figures": [{"name": "RSS"}]}, []):
        with pytest.raises(ValueError, match="figure"):
            own.checked(wrong)


def test_a_file_that_names_its_figures_itself_gets_its_goals() -> None:
    named = (own.Named("rss_mb", "memory", "MB", 150), own.Named("s", "time", "s"), own.Named("gone", "gone", "s", 1))
    assert own.checked({"rss_mb": 151.0, "s": 2.0}, named)["figures"] == [
        {"name": "memory", "value": 151.0, "unit": "MB", "goal": 150, "met": False},
        {"name": "time", "value": 2.0, "unit": "s"},
        {"name": "gone", "value": None, "unit": "s", "goal": 1, "met": None},
    ]
