"""In a container, what cannot be reached or written is answered with what to add outside."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from model_analyzer.adapters.container import OUR_IMAGE
from model_analyzer.adapters.files import cannot_write
from model_analyzer.adapters.triton.docker_engine import remedy_for_socket

DENIED = OSError(errno.EACCES, "Permission denied")


@pytest.fixture
def in_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OUR_IMAGE, "1")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def fix_for(path: Path) -> str:
    (fault,) = cannot_write(path, DENIED).faults
    return fault.fix


@pytest.mark.usefixtures("in_docker")
class TestInDocker:
    def test_the_socket_is_answered_with_its_own_group(self, tmp_path: Path) -> None:
        socket = tmp_path / "docker.sock"
        socket.touch()
        assert f"add --group-add {socket.stat().st_gid} to docker run" in remedy_for_socket(f"unix://{socket}")

    def test_a_folder_that_is_not_mounted_is_to_be_mounted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "is_mount", lambda _: False)
        assert "add -v EXPORT:/nowhere/results to docker run" in fix_for(Path("/nowhere/results"))

    @pytest.mark.parametrize(
        ("owner", "words"),
        [(1234, "add --user 1234:1234 to docker run"), (0, f"sudo chown {os.getuid()}:{os.getgid()} EXPORT")],
    )
    def test_a_mounted_folder_is_answered_by_its_owner(
        self, owner: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
        status = tmp_path.stat()
        owned = os.stat_result((*status[:4], owner, owner, *status[6:10]))
        real = Path.stat
        monkeypatch.setattr(Path, "stat", lambda path, **given: owned if path == tmp_path else real(path, **given))
        assert words in fix_for(tmp_path / "run-1" / "table.csv")


def test_outside_of_a_container_nothing_is_said_of_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(OUR_IMAGE, raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "docker run" not in fix_for(tmp_path) + remedy_for_socket("")


def test_in_a_pod_the_group_of_its_volumes_is_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert f"fsGroup: {os.getgid()}" in fix_for(Path("/results"))
