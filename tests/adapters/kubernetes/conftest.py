"""A stand-in for a cluster, and the environment that points at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_api import Cluster, serving


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """An empty cluster, reached as `kubectl` would."""
    files = tmp_path / "claim"
    files.mkdir()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serving(Cluster(files), tmp_path / "kubeconfig") as served:
        yield served
