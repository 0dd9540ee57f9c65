"""One shard a GPU, across processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from model_analyzer.adapters.gpu_locks import FOLDER, GpuLocks
from model_analyzer.errors import ExportPathError

GPU = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"


def hold(export_path: str, gpu: str, ready: object, release: object) -> None:
    with GpuLocks(Path(export_path)) as claims:
        assert claims.claim(gpu) is None
        ready.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_gpu_is_another_process_s_until_it_ends(tmp_path: Path, how: str) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(tmp_path), GPU, ready, release))
    holder.start()
    try:
        assert ready.wait(30)
        with GpuLocks(tmp_path) as claims:
            assert (claims.claim(GPU) or "").startswith(f"process {holder.pid} on ")
            assert claims.claim(f"{GPU}/1") is None, "a MIG instance is a GPU of its own"
            assert claims.claim("GPU-other") is None
            if how == "ends":
                release.set()
            else:
                holder.kill()
            holder.join(30)
            assert claims.claim(GPU) is None
            assert claims.claim(GPU) is None, "held already"
    finally:
        holder.kill()
        holder.join(30)


def test_leaving_frees_every_gpu(tmp_path: Path) -> None:
    with GpuLocks(tmp_path) as first:
        assert first.claim(GPU) is None
        with GpuLocks(tmp_path) as second:
            assert second.claim(GPU) is not None
    with GpuLocks(tmp_path) as third:
        assert third.claim(GPU) is None


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_refused_claim_leaves_no_file_open(tmp_path: Path) -> None:
    with GpuLocks(tmp_path) as first, GpuLocks(tmp_path) as second:
        first.claim(GPU)
        before = open_files()
        for _ in range(20):
            assert second.claim(GPU) is not None
        assert open_files() == before


def test_no_name_on_a_metrics_page_leaves_the_folder(tmp_path: Path) -> None:
    with GpuLocks(tmp_path / "results") as claims:
        for name in ("../../outside", "..", "GPU-a/../../b", "/etc/passwd"):
            assert claims.claim(name) is None
        made = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(made) == 4
        assert {path.parent for path in made} == {tmp_path / "results" / FOLDER}


def test_a_folder_that_cannot_be_made_is_an_error_of_the_export_path(tmp_path: Path) -> None:
    (tmp_path / FOLDER).touch()
    with GpuLocks(tmp_path) as claims, pytest.raises(ExportPathError, match="name a folder as --export-path"):
        claims.claim(GPU)
