"""A whole file or none."""

from __future__ import annotations

import errno
import resource
import threading
from pathlib import Path

import pytest

from model_analyzer.adapters.files import cannot_write, write_atomically
from model_analyzer.errors import ExportPathError


def test_a_reader_sees_one_whole_version_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    versions = {f"{number}\n" * 10_000 for number in range(2)}
    write_atomically(path, min(versions))
    over = threading.Event()
    seen: list[str] = []

    def read() -> None:
        while not over.is_set():
            seen.append(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        write_atomically(path, sorted(versions)[number % 2])
    over.set()
    reader.join()
    assert seen
    assert set(seen) <= versions


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_atomically(path, "old\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ExportPathError) as caught:
            write_atomically(path, "new\n" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.faults[0].where == str(path)
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made_and_line_ends_kept(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.csv", "x\ny\r\n")
    assert (tmp_path / "a" / "b.csv").read_bytes() == b"x\ny\r\n"


def test_a_folder_in_the_way_is_an_error_and_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(ExportPathError, match=r"table\.csv: cannot be written"):
        write_atomically(tmp_path / "table.csv", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("code", "fix"),
    [(errno.ENOSPC, "free space"), (errno.EROFS, "mount it writable"), (errno.EACCES, "mend its permissions"),
     (errno.EIO, "another --export-path")],
)  # fmt: skip
def test_each_cause_has_its_way_out(code: int, fix: str) -> None:
    (fault,) = cannot_write(Path("/export"), OSError(code, "cause")).faults
    assert fault.what == "cannot be written (cause)"
    assert fix in fault.fix
