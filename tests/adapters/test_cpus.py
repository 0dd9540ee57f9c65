"""How many CPUs count: those of the affinity, within what the cgroups leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from model_analyzer.adapters.cpus import _ranges, check_cpus, usable_cpus
from model_analyzer.errors import SpecError

SIXTY_FOUR = range(64)


def tree(folder: Path, own: str, **files: str) -> dict[str, Path]:
    """A /sys/fs/cgroup and a /proc/self/cgroup. files: path with __ for / and _DOT_ for a dot -> content."""
    (folder / "own").write_text(own)
    for name, content in files.items():
        path = folder / "cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {"cgroups": folder / "cgroup", "own": folder / "own"}


V2 = {"cgroup_DOT_controllers": "cpu memory\n"}


@pytest.mark.parametrize(
    ("limit", "counted"),
    [
        ("200000 100000\n", 2),
        ("max 100000\n", 64),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("6400000 50000\n", 64),
        ("garbage", 64),
    ],
)
def test_a_containers_limit_counts_on_a_large_node(tmp_path: Path, limit: str, counted: int) -> None:
    """In a container of cgroup v2 the root is the container's own."""
    assert usable_cpus(SIXTY_FOUR, **tree(tmp_path, "0::/\n", **V2, cpu_DOT_max=limit)) == counted


def test_the_tightest_of_the_cgroups_around_counts(tmp_path: Path) -> None:
    files = {
        "pods__cpu_DOT_max": "max 100000",
        "pods__pod1__cpu_DOT_max": "300000 100000",
        "pods__pod1__main__cpu_DOT_max": "800000 100000",
        "other__cpu_DOT_max": "100000 100000",
    }
    assert usable_cpus(SIXTY_FOUR, **tree(tmp_path, "0::/pods/pod1/main\n", **V2, **files)) == 3


def test_v1_has_its_own_files(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct__docker__1__cpu_DOT_cfs_quota_us": "200000\n",
        "cpu,cpuacct__docker__1__cpu_DOT_cfs_period_us": "100000\n",
        "cpu,cpuacct__cpu_DOT_cfs_quota_us": "-1\n",
        "cpu,cpuacct__cpu_DOT_cfs_period_us": "100000\n",
    }
    own = "9:cpuset:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/docker/1\n"
    assert usable_cpus(SIXTY_FOUR, **tree(tmp_path, own, **files)) == 2


def test_in_a_container_of_v1_the_path_is_the_hosts_and_the_root_is_ours(tmp_path: Path) -> None:
    files = {"cpu__cpu_DOT_cfs_quota_us": "400000", "cpu__cpu_DOT_cfs_period_us": "100000"}
    own = "4:cpu,cpuacct:/kubepods/pod1/main\n"
    assert usable_cpus(SIXTY_FOUR, **tree(tmp_path, own, **files)) == 4


def test_v2_beside_v1_lies_in_a_folder_of_its_own(tmp_path: Path) -> None:
    files = {"unified__job__cpu_DOT_max": "300000 100000"}
    assert usable_cpus(SIXTY_FOUR, **tree(tmp_path, "1:cpu:/\n0::/job\n", **files)) == 3


def test_no_cgroup_is_no_limit(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert usable_cpus(SIXTY_FOUR, nowhere, nowhere) == 64
    assert usable_cpus((), nowhere, nowhere) == len(os.sched_getaffinity(0))
    assert usable_cpus([3], nowhere, nowhere) == 1


def test_a_narrower_affinity_counts(tmp_path: Path) -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from model_analyzer.adapters.cpus import usable_cpus; print(usable_cpus())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


V1_CPU = Path("/sys/fs/cgroup/cpu")


@pytest.fixture
def quota_of_one() -> Iterator[Path]:
    """A real cgroup with a limit of one CPU."""
    v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    folder = (Path("/sys/fs/cgroup") if v2 else V1_CPU) / f"model-analyzer-test-{os.getpid()}"
    limit = folder / ("cpu.max" if v2 else "cpu.cfs_quota_us")
    try:
        folder.mkdir()
        limit.write_text("100000 100000" if v2 else "100000")
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    yield folder
    folder.rmdir()


def test_the_limit_of_a_real_cgroup_counts(quota_of_one: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from model_analyzer.adapters.cpus import usable_cpus;"
        "Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid())); print(usable_cpus(range(64)))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(quota_of_one)], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_a_cpu_that_is_not_ours_is_one_error_that_names_ours() -> None:
    check_cpus(os.sched_getaffinity(0))
    with pytest.raises(SpecError) as caught:
        check_cpus([min(os.sched_getaffinity(0)), 4000, 4001])
    said = str(caught.value)
    assert said.startswith("client_cpus: CPU 4000, 4001 is not there, or not ours; use some of ")
    assert said.endswith(_ranges(os.sched_getaffinity(0)))


def test_ranges_are_as_taskset_writes_them() -> None:
    assert _ranges([0, 1, 2, 3, 8, 10, 11]) == "0-3,8,10-11"
