"""A model's files, as a digest that changes when they do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_analyzer.adapters.fingerprint import PROBE_BYTES, WHOLE_BYTES, fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("max_batch_size: 8")
    (folder / "1" / "model.py").write_text("x = 1")
    return folder


def test_the_same_files_have_the_same_digest_wherever_they_are(model: Path) -> None:
    before = fingerprint([model])
    moved = model.rename(model.with_name("elsewhere"))
    for file in moved.rglob("*"):
        os.utime(file, (1, 1))
    assert fingerprint([moved]) == before
    assert len(before) == 16


@pytest.mark.parametrize("change", ["content", "new file", "renamed", "removed", "data file"])
def test_a_change_changes_it(model: Path, tmp_path: Path, change: str) -> None:
    data = tmp_path / "data.json"
    data.write_text("{}")
    before = fingerprint([data, model])
    if change == "content":
        (model / "1" / "model.py").write_text("x = 2")
    elif change == "new file":
        (model / "labels.txt").write_text("")
    elif change == "renamed":
        (model / "1").rename(model / "2")
    elif change == "removed":
        (model / "1" / "model.py").unlink()
    else:
        data.write_text("[]")
    assert fingerprint([data, model]) != before


def test_what_python_leaves_beside_a_model_is_no_change(model: Path) -> None:
    before = fingerprint([model])
    (model / "1" / "__pycache__").mkdir()
    (model / "1" / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"x")
    assert fingerprint([model]) == before


@pytest.mark.parametrize("offset", [0, (WHOLE_BYTES * 2 + 1) // 2, WHOLE_BYTES * 2])
def test_of_a_large_file_the_start_the_middle_and_the_end_are_read(model: Path, offset: int) -> None:
    weights = model / "1" / "weights.bin"
    weights.write_bytes(bytes(WHOLE_BYTES * 2 + 1))
    before = fingerprint([model])
    with weights.open("r+b") as file:
        file.seek(offset)
        file.write(b"\1")
    assert fingerprint([model]) != before
    assert WHOLE_BYTES > 3 * PROBE_BYTES


def test_a_version_folder_that_is_a_link_is_followed_and_a_ring_of_links_ends(model: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    (model / "1").rename(weights)
    (model / "1").symlink_to(weights)
    (weights / "up").symlink_to(model)
    before = fingerprint([model])
    (weights / "model.py").write_text("x = 2")
    assert fingerprint([model]) != before


@pytest.mark.parametrize("name", ["nowhere", "n" * 5000, "a\0b"])
def test_a_path_that_cannot_be_read_has_a_digest_of_its_own(model: Path, name: str) -> None:
    assert fingerprint([model / name]) == fingerprint([model / name]) != fingerprint([model])


def test_a_pipe_among_the_files_is_not_waited_for(model: Path) -> None:
    before = fingerprint([model])
    os.mkfifo(model / "pipe")
    assert fingerprint([model]) == before
