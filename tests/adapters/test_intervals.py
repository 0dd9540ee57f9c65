"""Files of custom intervals: perf_analyzer's format, and every line that is wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_analyzer.adapters.intervals import MOST_FAULTS, read_intervals
from model_analyzer.errors import SpecError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "intervals.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["100000\n200000\n0\n", "100000\r\n200000\r\n0", "\n 1e5 \n\n200000.0\n0\n\n"])
def test_intervals_are_microseconds_one_a_line(tmp_path: Path, text: str) -> None:
    assert read_intervals(written(tmp_path, text)) == (100_000_000, 200_000_000, 0)


def test_every_wrong_line_is_told_at_once_with_its_number(tmp_path: Path) -> None:
    path = written(tmp_path, "100\nten\n\n-5\n200\nnan\n4e9\n")
    with pytest.raises(SpecError) as error:
        read_intervals(path)
    assert [(fault.where, fault.what) for fault in error.value.faults] == [
        (f"{path}:2", "'ten' is no number"),
        (f"{path}:4", "the interval is -5"),
        (f"{path}:6", "the interval is nan"),
        (f"{path}:7", "the interval is 4e9 us, more than an hour"),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "it holds no interval"), ("\n\n", "it holds no interval"), ("0\n0\n", "no interval is above 0")],
)
def test_a_file_that_says_nothing_is_a_fault(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        read_intervals(written(tmp_path, text))


def test_another_kind_of_file_is_not_told_line_by_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        read_intervals(written(tmp_path, "x\n" * 1000))
    assert len(error.value.faults) == MOST_FAULTS + 1


def test_a_file_that_cannot_be_read_is_a_fault_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        read_intervals(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="it is no text"):
        read_intervals(tmp_path / "binary")
