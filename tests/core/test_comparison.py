"""The comparison: prices by the words of a type, cost by arithmetic done by hand, equal phases side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adapters.measured import measured, phase

from model_analyzer.core.comparison import compare, cost_per_million, price_of
from model_analyzer.core.load import SharedMemory
from model_analyzer.core.measurement import Environment, Measurement
from model_analyzer.core.reduce import failed
from model_analyzer.core.telemetry import Gpu

L4, A100, H100 = "NVIDIA L4", "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"
SLICE = "NVIDIA A100-SXM4-80GB MIG 1g.10gb"


def on(*models: str, throughput: float | None = 100.0, **of: object) -> Measurement:
    """A phase on one GPU of each of these types."""
    row = measured(phase(**of), gpu="GPU-0")  # type: ignore[arg-type]
    keys = [f"GPU-{n}" for n in range(len(models))]
    return replace(
        row,
        values={**row.values, "perf_throughput": throughput},
        gpus=dict.fromkeys(keys, row.gpus["GPU-0"]),
        environment=Environment(gpus={key: Gpu(model) for key, model in zip(keys, models, strict=True)}),
    )


@pytest.mark.parametrize(
    ("gpu_type", "prices", "price"),
    [
        (L4, {"L4": 0.7}, 0.7),
        (L4, {"l4": 0.7}, 0.7),
        (L4, {"nvidia l4": 0.7}, 0.7),
        ("NVIDIA L40S", {"L4": 0.7}, None),
        (L4, {"L40S": 1.9}, None),
        (A100, {"A100": 3.0}, 3.0),
        (A100, {"A100": 3.0, "A100 80GB": 4.0}, 4.0),
        (A100, {"NVIDIA A100-SXM4-80GB": 5.0, "A100": 3.0, "A100 80GB": 4.0}, 5.0),
        ("NVIDIA A100-PCIE-40GB", {"A100": 3.0, "A100 80GB": 4.0}, 3.0),
        (H100, {"H100": 6.0, "H100 HBM3": 7.0}, 7.0),
        ("NVIDIA H200", {"H100": 6.0}, None),
        ("NVIDIA RTX 6000 Ada Generation", {"Generation": 9.0, "RTX Ada": 2.0}, 2.0),
        (SLICE, {"A100": 3.0}, None),
        (SLICE, {"A100 MIG": 3.0}, None),
        (SLICE, {"A100": 3.0, "A100 MIG 1g.10gb": 0.5}, 0.5),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", {"A100 MIG 1g.10gb": 0.5}, None),
        (A100, {"A100 MIG 1g.10gb": 0.5}, None),
        (L4, {"": 9.0, " - ": 8.0}, None),
        (L4, {}, None),
    ],
)
def test_a_price_is_that_of_the_key_with_the_most_whole_words_of_the_type(
    gpu_type: str, prices: dict[str, float], price: float | None
) -> None:
    found, why = price_of(gpu_type, prices)
    assert found == price
    assert bool(why) is (price is None)


@pytest.mark.parametrize(
    ("row", "prices", "cost"),
    [
        # 0.72 an hour / 3600 s = 0.0002 a second; 1e6 / 100 infer/s = 10,000 s.
        (on(L4), {"L4": 0.72}, 2.0),
        # 1.80 / 3600 = 0.0005 a second; 1e6 / 250 = 4,000 s.
        (on(L4, throughput=250.0), {"L4": 1.8}, 2.0),
        # Two GPUs at 3.60: 7.20 / 3600 = 0.002 a second; 1e6 / 1000 = 1,000 s.
        (on(A100, A100, throughput=1000.0), {"A100": 3.6}, 2.0),
        # 0.36 and 3.24 together: 3.60 / 3600 = 0.001 a second; 1e6 / 500 = 2,000 s.
        (on(L4, A100, throughput=500.0), {"L4": 0.36, "A100": 3.24}, 2.0),
    ],
)
def test_cost_is_the_price_of_the_time_that_a_million_inferences_take(
    row: Measurement, prices: dict[str, float], cost: float
) -> None:
    assert cost_per_million(row, prices) == (pytest.approx(cost, rel=1e-12), "")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (on(L4), "no price of NVIDIA L4 in gpu_prices"),
        (on(""), "the GPU type is unknown: no DCGM exporter was read"),
        (on(H100, throughput=0.0), "no throughput"),
        (on(H100, throughput=None), "no throughput"),
        (replace(on(H100), status="failed"), "no throughput"),
        (failed(phase(), "out of memory"), "no throughput"),
        (measured(phase()), "it is not known which GPUs were used"),
        (on(SLICE), f"no price of {SLICE} in gpu_prices: a MIG instance needs a key with its profile"),
    ],
)
def test_without_a_cost_there_is_its_reason(row: Measurement, why: str) -> None:
    assert cost_per_million(row, {"H100": 6.0, "A100": 3.0}) == (None, why)


def test_equal_phases_stand_together_in_the_order_of_the_types_whatever_their_ids() -> None:
    def elsewhere(row: Measurement) -> Measurement:
        return replace(row, phase=replace(row.phase, id=f"other-{row.phase.id}"))

    rows = [on(A100, load=1), on(A100, load=2), elsewhere(on(L4, load=1)), elsewhere(on(L4, load=2)), on(H100, load=2)]
    assert [(row.measurement.phase.load.value, row.gpu_type) for row in compare(rows, {}, (L4, A100, H100))] == [
        (1, L4),
        (1, A100),
        (2, L4),
        (2, A100),
        (2, H100),
    ]


def test_phases_that_differ_in_what_is_asked_of_the_model_are_not_equal() -> None:
    base = on(L4)
    variant = replace(base.phase.variant, overrides_json='{"max_batch_size":4}')
    others = [
        on(A100, load=2),
        on(A100, batch=2),
        on(A100, model="n"),
        on(A100, kind="request_rate"),
        replace(base, phase=replace(base.phase, variant=variant)),
        replace(base, phase=replace(base.phase, protocol="grpc")),
        replace(base, phase=replace(base.phase, source=replace(base.phase.source, mode="zero"))),
        replace(base, phase=replace(base.phase, source=replace(base.phase.source, shared_memory=SharedMemory()))),
        replace(base, phase=replace(base.phase, call="generate_stream")),
        replace(base, phase=replace(base.phase, load=replace(base.phase.load, ramp_s=2.0))),
        replace(base, phase=replace(base.phase, load=replace(base.phase.load, max_concurrency=8))),
    ]
    rows = compare([base, *others, on(H100)], {}, ())
    assert [row.gpu_type for row in rows][:2] == [L4, H100], "only these two are one phase"
    assert len(rows) == len(others) + 2


def test_a_row_counts_the_gpus_it_is_charged_with() -> None:
    (row,) = compare([on(A100, A100)], {"A100": 3.0})
    assert (row.gpu_type, row.gpus) == (A100, 2)
