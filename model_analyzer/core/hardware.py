"""GPU types: what a row was measured on, and whether it holds on the hardware of now.

A GPU type is a product name as DCGM has it ("NVIDIA L4", "NVIDIA A100-SXM4-80GB MIG 1g.10gb"). Without a DCGM exporter
nobody says it: then it is unknown, and an unknown type is taken for any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model_analyzer.core.gpus import GpuChoice, parent, select_gpus
from model_analyzer.core.measurement import Baseline, Measurement
from model_analyzer.core.telemetry import Gpu, Page

GpuTypes = frozenset[str]
UNKNOWN: GpuTypes = frozenset()


def measured_on(row: Measurement | Baseline) -> GpuTypes:
    """The types of the GPUs that count; where a row has no figures of any, of those that would have."""
    seen = row.environment.gpus
    return _types(seen[key] for key in row.gpus if key in seen) or _types(seen.values())


def types_on(pages: Iterable[Page], choice: GpuChoice) -> GpuTypes:
    """The types of the GPUs that a run will measure on, from the first page of each source."""
    pages = tuple(pages)
    seen = {key: gpu for page in pages if page.source == "dcgm" for key, gpu in page.gpus.items()}
    return _types(seen[key] for key in select_gpus(pages, choice).gpus if key in seen)


def holds(measured: GpuTypes, here: GpuTypes) -> bool:
    """Whether what was measured there is as good as measured here. here: may be more than what will be used."""
    return not measured or not here or measured <= here


def shown(types: Iterable[str]) -> str:
    """For people and tables; "" for unknown."""
    return " + ".join(sorted(types))


def charged(row: Measurement) -> Mapping[str, str]:
    """GPU or MIG instance that a phase is charged with -> its type, "" where unknown.

    An instance of a GPU that counts as a whole is in it.
    """
    seen = row.environment.gpus
    keys = [key for key in row.gpus if key == parent(key) or parent(key) not in row.gpus]
    return {key: seen[key].model if key in seen else "" for key in keys}


def _types(gpus: Iterable[Gpu]) -> GpuTypes:
    return frozenset(gpu.model for gpu in gpus if gpu.model)
