"""A DCGM exporter's metrics page.

Fields and units: the exporter's etc/default-counters.csv and NVIDIA's DCGM field
identifiers. Labels: `gpu`, `UUID`, `GPU_I_ID` and `GPU_I_PROFILE` on rows of MIG
instances (whose UUID is the parent's), `modelName`, and `pod`, `namespace`,
`container` where the exporter maps pods.
"""

from __future__ import annotations

from time import monotonic_ns

from model_analyzer.adapters.telemetry.prometheus import Endpoint, PageProblem, Row
from model_analyzer.core.metric import MIB
from model_analyzer.core.telemetry import Gpu, Page, Series

# Field -> factor from the exporter's unit to the project's.
UNITS = {
    "DCGM_FI_DEV_GPU_UTIL": 0.01,
    "DCGM_FI_DEV_MEM_COPY_UTIL": 0.01,
    "DCGM_FI_DEV_FB_USED": MIB,
    "DCGM_FI_DEV_FB_FREE": MIB,
    "DCGM_FI_DEV_FB_RESERVED": MIB,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1e-3,
    "DCGM_FI_DEV_SM_CLOCK": 1e6,
    "DCGM_FI_DEV_MEM_CLOCK": 1e6,
}
# dcgm_structs.h: values from these on mean blank, not found, not supported or not permitted.
INT32_BLANKS = range(0x7FFFFFF0, 0x7FFFFFFF + 1)
INT64_BLANK = float(0x7FFFFFFFFFFFFFF0)
FP64_BLANK = 140737488355328.0
FP64_BLANKS = frozenset(FP64_BLANK + n for n in range(4))


class DcgmSampler:
    """A ports.Sampler of one exporter."""

    name = "dcgm"

    def __init__(self, url: str) -> None:
        self.origin = url
        self._endpoint = Endpoint(url)

    def sample(self) -> Page:
        """Scrape once; bounded in time, never raises."""
        before = monotonic_ns()
        try:
            rows = self._endpoint.rows()
        except PageProblem as problem:
            return Page(self.name, self.origin, monotonic_ns(), problem=str(problem))
        return page_of(rows, (before + monotonic_ns()) // 2, self.origin)


def page_of(rows: list[Row], time_ns: int, origin: str) -> Page:
    """Key rows by (UUID, GPU_I_ID); leave blanks out; convert units."""
    values: dict[Series, float] = {}
    gpus: dict[str, Gpu] = {}
    for row in rows:
        if not row.name.startswith("DCGM_FI_") or not row.labels.get("UUID"):
            continue
        instance = row.labels.get("GPU_I_ID", "")
        key = row.labels["UUID"] + (f"/{instance}" if instance else "")
        gpus[key] = _gpu(row)
        if not is_blank(row.value):
            values[Series(row.name, key)] = row.value * UNITS.get(row.name, 1.0)
    problem = None if gpus else f"{origin}: the page has no GPU rows"
    return Page("dcgm", origin, time_ns, values, gpus, hash(tuple(values.items())), problem)


def is_blank(value: float) -> bool:
    """Whether DCGM means that there is no value."""
    return value >= INT64_BLANK or value in INT32_BLANKS or value in FP64_BLANKS


def _gpu(row: Row) -> Gpu:
    profile = row.labels.get("GPU_I_PROFILE", "")
    model = row.labels.get("modelName", "")
    return Gpu(
        model=f"{model} MIG {profile}" if profile else model,
        index=row.labels.get("gpu", ""),
        pod=row.labels.get("pod", ""),
        namespace=row.labels.get("namespace", ""),
    )
