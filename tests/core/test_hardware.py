"""GPU types: of a row, of the pages at the start of a run, and whether the one holds on the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adapters.measured import measured, phase

from model_analyzer.core.gpus import GpuChoice
from model_analyzer.core.hardware import UNKNOWN, charged, holds, measured_on, shown, types_on
from model_analyzer.core.measurement import Environment
from model_analyzer.core.reduce import failed
from model_analyzer.core.telemetry import Gpu, GpuUser, Page

L4, A100, SLICE = "NVIDIA L4", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB MIG 1g.10gb"


def exporter(**gpus: Gpu) -> Page:
    return Page("dcgm", "http://exporter", 0, {}, {key.replace("_", "/"): gpu for key, gpu in gpus.items()})


@pytest.mark.parametrize(
    ("measured", "here", "good"),
    [
        ({L4}, {L4}, True),
        ({L4}, {A100}, False),
        (set(), {A100}, True),
        ({L4}, set(), True),
        ({A100}, {A100, L4}, True),
        ({A100, L4}, {A100}, False),
        ({SLICE}, {A100}, False),
    ],
)
def test_a_row_holds_where_all_its_types_are_or_where_nobody_knows(
    measured: set[str], here: set[str], good: bool
) -> None:
    assert holds(frozenset(measured), frozenset(here)) is good


def test_a_row_was_measured_on_the_gpus_that_count_and_not_on_its_neighbours() -> None:
    row = measured(phase(), gpu="GPU-a")
    row = replace(row, environment=Environment(gpus={"GPU-a": Gpu(L4), "GPU-b": Gpu(A100)}))
    assert measured_on(row) == {L4}


def test_a_failed_row_has_the_type_of_the_gpus_that_would_have_counted() -> None:
    row = replace(failed(phase(), "out of memory"), environment=Environment(gpus={"GPU-a": Gpu(L4)}))
    assert measured_on(row) == {L4}


def test_without_an_exporter_a_gpu_has_no_type() -> None:
    row = replace(measured(phase(), gpu="GPU-a"), environment=Environment(gpus={"GPU-a": Gpu()}))
    assert measured_on(row) == UNKNOWN
    assert shown(measured_on(row)) == ""
    assert types_on([Page("triton", "", 0, {}, {"GPU-a": Gpu()})], GpuChoice()) == UNKNOWN


def test_triton_narrows_the_exporters_gpus_down() -> None:
    pages = [exporter(GPU1=Gpu(L4), GPU2=Gpu(A100)), Page("triton", "", 0, {}, {"GPU2": Gpu()})]
    assert types_on(pages, GpuChoice()) == {A100}
    assert types_on(pages[:1], GpuChoice()) == {L4, A100}, "all of the exporter while nobody says more"


def test_in_a_pod_the_mapped_gpu_decides() -> None:
    page = exporter(GPU1=Gpu(L4, users=(GpuUser("other", "ns"),)), GPU2=Gpu(A100, users=(GpuUser("mine", "ns"),)))
    assert types_on([page], GpuChoice(pod="mine", namespace="ns")) == {A100}


def test_a_mig_instance_is_charged_for_itself_and_within_a_whole_gpu_not_again() -> None:
    row = measured(phase(), gpu="GPU-a")
    of = row.gpus["GPU-a"]
    seen = {"GPU-a": Gpu(A100), "GPU-a/1": Gpu(SLICE), "GPU-a/2": Gpu(SLICE)}
    instances = replace(row, gpus={"GPU-a/1": of, "GPU-a/2": of}, environment=Environment(gpus=seen))
    assert charged(instances) == {"GPU-a/1": SLICE, "GPU-a/2": SLICE}
    everything = replace(row, gpus={"GPU-a": of, "GPU-a/1": of, "GPU-a/2": of}, environment=Environment(gpus=seen))
    assert charged(everything) == {"GPU-a": A100}


def test_several_types_are_shown_in_one_order() -> None:
    assert shown([L4, A100]) == shown([A100, L4]) == f"{A100} + {L4}"
