"""How many CPUs this process may use: fewer than the machine has where an affinity or a container's limit says so."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from model_analyzer.errors import SpecError

CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cpus(cpus: Collection[int] = (), cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Whole CPUs that we may keep busy, 1 at least: of our affinity, or of these `cpus`, within the quota of every cgroup.

    A pod with a limit of 2 CPUs on a node of 64 sees all 64, and is held up once it has used two: it counts 2. So does
    one with 2.5: a process that has half a CPU stands still half the time. cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us).
    """
    allowed = len(cpus or os.sched_getaffinity(0))
    return max(1, int(min([float(allowed), *_quotas(cgroups, own)])))


def check_cpus(cpus: Collection[int]) -> None:
    """Raises SpecError where one of them is none of ours."""
    ours = os.sched_getaffinity(0)
    if missing := sorted(set(cpus) - ours):
        what = f"CPU {', '.join(map(str, missing))} is not there, or not ours"
        raise SpecError("client_cpus", what, f"use some of {_ranges(ours)}")


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The limit of our cgroup and of each one around it, in CPUs; of those that have one."""
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                # Beside v1's controllers the hierarchy of v2 has a folder of its own.
                root = cgroups if (cgroups / "cgroup.controllers").exists() else cgroups / "unified"
                yield from (quota for folder in _upwards(root, path) if (quota := _of_v2(folder)))
            elif "cpu" in controllers.split(","):
                root = next((cgroups / name for name in (controllers, "cpu") if (cgroups / name).is_dir()), cgroups)
                yield from (quota for folder in _upwards(root, path) if (quota := _of_v1(folder)))


def _upwards(root: Path, path: str) -> list[Path]:
    """From our cgroup to the root. In a container the path may be the host's, and the root is ours: then that is all."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return [root.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _of_v2(folder: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota) / float(period) if quota != "max" else None
    return None


def _of_v1(folder: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = float((folder / "cpu.cfs_quota_us").read_text())
        return quota / float((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    return None


def _ranges(cpus: Collection[int]) -> str:
    """0-3,8 for 0, 1, 2, 3, 8."""
    found: list[list[int]] = []
    for cpu in sorted(cpus):
        if found and cpu == found[-1][-1] + 1:
            found[-1].append(cpu)
        else:
            found.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in found)
