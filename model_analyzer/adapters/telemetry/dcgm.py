"""A DCGM exporter's metrics page.

Fields and units: the exporter's etc/default-counters.csv and NVIDIA's DCGM field
identifiers. Labels: `gpu`, `UUID`, `GPU_I_ID` and `GPU_I_PROFILE` on rows of MIG
instances (whose UUID is the parent's), `modelName`, and those of `POD_LABELS`
where the exporter maps pods. With --kubernetes-virtual-gpus a shared GPU has a row
for each pod, and newer exporters show some fields of that pod's processes there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from model_analyzer.adapters.telemetry.prometheus import Head, PageSampler, Row
from model_analyzer.core.metric import MIB
from model_analyzer.core.telemetry import Gpu, GpuUser, Page, Series

PREFIX = "DCGM_FI_"
# Field -> factor from the exporter's unit to the project's.
UNITS = {
    "DCGM_FI_DEV_GPU_UTIL": 0.01,
    "DCGM_FI_DEV_MEM_COPY_UTIL": 0.01,
    "DCGM_FI_DEV_FB_TOTAL": MIB,
    "DCGM_FI_DEV_FB_USED": MIB,
    "DCGM_FI_DEV_FB_FREE": MIB,
    "DCGM_FI_DEV_FB_RESERVED": MIB,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1e-3,
    "DCGM_FI_DEV_SM_CLOCK": 1e6,
    "DCGM_FI_DEV_MEM_CLOCK": 1e6,
}
# DCGM 4.7's fields in base units, which exporters from 4.9.0 on show (its release notes; DCGM's field identifiers,
# 1603-1628; go-dcgm's base_unit_fields_test.go and alias_resolution_test.go) -> the name that we know them by.
BASE_UNITS = {
    "DCGM_FI_DEV_GPU_UTIL_RATIO": "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEMORY_UTIL_RATIO": "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_FB_CAPACITY_BYTES": "DCGM_FI_DEV_FB_TOTAL",
    "DCGM_FI_DEV_FB_USED_BYTES": "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE_BYTES": "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_RESERVED_BYTES": "DCGM_FI_DEV_FB_RESERVED",
    "DCGM_FI_DEV_BOARD_POWER_WATTS": "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_SM_CLOCK_HERTZ": "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEMORY_CLOCK_HERTZ": "DCGM_FI_DEV_MEM_CLOCK",
    "DCGM_FI_DEV_GPU_TEMP_CELSIUS": "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_XID_ERROR": "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO": "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_TENSOR_UTIL_RATIO": "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_UTIL_RATIO": "DCGM_FI_PROF_DRAM_ACTIVE",
}
# Pod, namespace and container. A page that Prometheus passes on (federation) has the workload in exported_*, and the
# exporter's own pod in the plain ones; the last are those of --use-old-namespace. Source: the exporter's
# internal/pkg/transformation/const.go.
POD_LABELS = (
    ("exported_pod", "exported_namespace", "exported_container"),
    ("pod", "namespace", "container"),
    ("pod_name", "pod_namespace", "container_name"),
)
# dcgm_structs.h: values from these on mean blank, not found, not supported or not permitted. Integers: as a float,
# the 64-bit ones are 2^63, which no integer of the page reaches.
INT32_BLANKS = range(0x7FFFFFF0, 0x7FFFFFFF + 1)
INT64_BLANK = 0x7FFFFFFFFFFFFFF0
FP64_BLANK = 140737488355328.0
FP64_BLANKS = frozenset(FP64_BLANK + n for n in range(4))
# No blank is below it.
LEAST_BLANK = INT32_BLANKS.start


class DcgmSampler(PageSampler):
    """A ports.Sampler of one exporter. pod, namespace: ours, "" outside Kubernetes."""

    def __init__(self, url: str, pod: str = "", namespace: str = "") -> None:
        super().__init__("dcgm", url, PREFIX, partial(page_of, pod=pod, namespace=namespace))


def page_of(rows: Iterable[Row], time_ns: int, origin: str, pod: str = "", namespace: str = "") -> Page:
    """Key rows by (UUID, GPU_I_ID); leave blanks out; convert units.

    Of several rows of one field of a GPU, those of this pod count; without any, the largest: no share is above the whole.
    """
    values: dict[Series, float] = {}
    ours: set[Series] = set()
    gpus: dict[str, Gpu] = {}
    for head, written in rows:
        about = _about(head)
        if about is None:
            continue  # an NVSwitch, a link, a CPU
        series, user, factor = about
        before = gpus.get(series.subject)
        if before is None or not before.model or (user is not None and user not in before.users):
            gpus[series.subject] = _gpu(head.labels, user, before)
        if written >= LEAST_BLANK and is_blank(written):
            continue
        value = written * (_ratio_factor(written) if factor is None else factor)
        is_ours = user is not None and (user.pod, user.namespace) == (pod, namespace)
        if series not in values or is_ours > (series in ours):
            values[series] = value
        elif is_ours == (series in ours):
            values[series] = max(value, values[series])
        if is_ours:
            ours.add(series)
    problem = None if gpus else f"{origin}: the page has no GPU rows"
    return Page("dcgm", origin, time_ns, values, gpus, hash(frozenset(values.items())), problem)


class _About(NamedTuple):
    """What a row's name and labels say. factor: to our units; None: the value decides."""

    series: Series
    user: GpuUser | None
    factor: float | None


@lru_cache(maxsize=20_000)
def _about(head: Head) -> _About | None:
    """None: it is no GPU's. Found out once for all pages of a source: its heads are the same objects in each."""
    uuid = head.labels.get("UUID")
    if not uuid:
        return None
    instance = head.labels.get("GPU_I_ID")
    known = BASE_UNITS.get(head.name)
    series = Series(known or head.name, f"{uuid}/{instance}" if instance else uuid)
    factor = UNITS.get(head.name, 1.0) if known is None else None if known == "DCGM_FI_DEV_GPU_UTIL" else 1.0
    return _About(series, _user(head.labels), factor)


def _ratio_factor(value: float) -> float:
    """DCGM 4.6 called the percentage (field 203) GPU_UTIL_RATIO; no ratio is above 1."""
    return 0.01 if value > 1 else 1.0


def is_blank(value: float) -> bool:
    """Whether DCGM means that there is no value."""
    return value >= INT64_BLANK or value in INT32_BLANKS or value in FP64_BLANKS


def _user(labels: Mapping[str, str]) -> GpuUser | None:
    for names in POD_LABELS:
        if labels.get(names[0]):
            pod, namespace, container = (labels.get(name, "") for name in names)
            return GpuUser(pod, namespace, container)
    return None


def _gpu(labels: Mapping[str, str], user: GpuUser | None, before: Gpu | None) -> Gpu:
    """What the rows up to this one say of a GPU."""
    profile = labels.get("GPU_I_PROFILE", "")
    model = labels.get("modelName", "")
    users = before.users if before else ()
    if user is not None and user not in users:
        users = (*users, user)
    return Gpu(f"{model} MIG {profile}" if profile else model, labels.get("gpu", ""), users)
