"""Triton Model Analyzer as a user calls it: its config file, and what its table says."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def config(common: Mapping[str, Any], perf_analyzer: Path, folder: Path, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Its YAML. common: keys that both tools know; folder: where all that it writes goes; flags: perf_analyzer's."""
    return {
        **common,
        "run_config_search_disable": True,
        "perf_analyzer_path": str(perf_analyzer),
        "perf_analyzer_flags": dict(flags),
        "export_path": str(folder / "export"),
        "checkpoint_directory": str(folder / "checkpoints"),
        "output_model_repository_path": str(folder / "variants"),
        "override_output_model_repository": True,
    }


def table(folder: Path) -> Path:
    """Where it writes its rows."""
    return folder / "export" / "results" / "metrics-model-inference.csv"


def read_table(text: str) -> dict[str, float]:
    """`model, batch b, concurrency c` -> infer/s. Rows that it left out are not there."""
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        if row.get("Throughput (infer/sec)"):
            name = row_name(row["Model"], row["Batch"], row["Concurrency"])
            found[name] = float(row["Throughput (infer/sec)"])
    return found


def row_name(model: str, batch: object, concurrency: object) -> str:
    """One name for a row of either tool."""
    return f"{model}, batch {batch}, concurrency {concurrency}"
