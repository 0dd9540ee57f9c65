"""Jobs for the tests that run the command as a user does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_tools import QUICK, Job

from model_analyzer.core.variant import Variant


@pytest.fixture
def make_job(tmp_path: Path, model_repository: Path) -> Callable[..., Job]:
    """Write a job of quick phases; keys replace the defaults."""

    def make(models: Any, name: str = "job", **keys: Any) -> Job:
        export_path = Path(keys.pop("export_path", tmp_path / f"{name}-results"))
        values: Mapping[str, Any] = {
            "model_repository": str(model_repository),
            "export_path": str(export_path),
            "profile_models": models,
            "triton_launch_mode": "embedded",
            **QUICK,
            **keys,
        }
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(dict(values), sort_keys=False))
        return Job(file, export_path)

    return make


@pytest.fixture
def remote(embedded_server: Any) -> Iterator[dict[str, str]]:
    """The keys of a job on the session's server, as if it were somebody else's. What a killed run leaves loaded is unloaded."""
    yield {
        "triton_launch_mode": "remote",
        "triton_http_endpoint": embedded_server.info.http_endpoint,
        "triton_grpc_endpoint": embedded_server.info.grpc_endpoint,
        "triton_metrics_url": embedded_server.info.metrics_url,
    }
    for name in embedded_server.server.loaded_models():
        embedded_server.server.unload(Variant(name, f"{name}_config_default"))
