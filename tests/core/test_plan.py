"""What a fixed sweep measures, in which order, and when a phase is another phase."""

from __future__ import annotations

from typing import Any

import pytest

from model_analyzer.core.plan import Group, plan
from model_analyzer.core.spec import JobSpec

SWEEP = {"instance_group": [{"kind": "KIND_CPU", "count": [1, 2]}], "max_batch_size": [4, 8]}


def groups(
    models: Any, conditions: dict[str, Any] | None = None, fingerprints: dict[str, str] | None = None, **keys: Any
) -> tuple[Group, ...]:
    spec = JobSpec.model_validate({"model_repository": "/m", "profile_models": models, **keys})
    return plan(spec.models(), spec.client_protocol, conditions or {}, fingerprints or {})


def ids(laid_out: tuple[Group, ...]) -> list[str]:
    return [phase.id for group in laid_out for phase in group.phases]


def test_phases_go_model_by_model_variant_by_variant_ascending_in_batch_then_load() -> None:
    laid_out = groups(["b", "a"], batch_sizes=[4, 1], concurrency=[8, 2])
    assert [str(phase) for group in laid_out for phase in group.phases] == [
        f"{model}_config_default batch {batch} concurrency {load}"
        for model in ("b", "a")
        for batch in (1, 4)
        for load in (2, 8)
    ]


def test_the_models_own_config_comes_first_then_each_combination_by_number() -> None:
    laid_out = groups({"m": {"model_config_parameters": SWEEP}})
    assert [(group.variant.name, group.variant.overrides) for group in laid_out] == [
        ("m_config_default", {}),
        *(
            (f"m_config_{n}", {"instance_group": [{"kind": "KIND_CPU", "count": count}], "max_batch_size": size})
            for n, (count, size) in enumerate([(1, 4), (1, 8), (2, 4), (2, 8)])
        ),
    ]


def test_cpu_only_moves_every_instance_to_the_cpu() -> None:
    swept = {"instance_group": [{"kind": "KIND_GPU", "count": [1, 2]}]}
    laid_out = groups({"m": {"cpu_only": True, "model_config_parameters": swept}})
    assert [group.variant.overrides["instance_group"] for group in laid_out] == [
        [{"kind": "KIND_CPU"}],
        [{"kind": "KIND_CPU", "count": 1}],
        [{"kind": "KIND_CPU", "count": 2}],
    ]


def test_a_phase_keeps_its_id_whatever_else_is_in_the_job() -> None:
    alone = ids(groups(["a"], concurrency=4))
    among = ids(groups({"b": None, "a": {"model_config_parameters": SWEEP}}, concurrency=[1, 4], batch_sizes=[1, 2]))
    assert set(alone) < set(among)
    assert len(set(among)) == len(among)


@pytest.mark.parametrize(
    "change",
    [
        {"models": ["b"]},
        {"models": {"a": {"cpu_only": True}}},
        {"models": {"a": {"triton_server_flags": {"log-verbose": 1}}}},
        {"models": {"a": {"triton_server_environment": {"A": "1"}}}},
        {"models": {"a": {"perf_analyzer_flags": {"input-data": "zero"}}}},
        {"models": {"a": {"perf_analyzer_flags": {"streaming": True}}}},
        {"models": {"a": {"perf_analyzer_flags": {"ssl-grpc-use-ssl": True}}}},
        {"models": {"a": {"perf_analyzer_flags": {"request-count": 100}}}},
        {"shared_memory": "system"},
        {"ramp_seconds": 2},
        {"batch_sizes": 2},
        {"concurrency": 2},
        {"request_rate": 1, "concurrency": None},
        {"client_protocol": "http"},
        {"conditions": {"rule": "other"}},
        {"fingerprints": {"a": "changed"}},
    ],
    ids=str,
)
def test_whatever_affects_the_result_changes_the_id(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"models": ["a"], "concurrency": 1}
    assert ids(groups(**base)) != ids(groups(**{**base, **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"export_path": "elsewhere"},
        {"latency_budget": 5},
        {"objectives": ["perf_latency_p99"]},
        {"inference_output_fields": ["model_name"]},
        {"models": {"a": {"weighting": 2}}},
        {"fingerprints": {"another model": "changed"}},
    ],
    ids=str,
)
def test_what_only_chooses_or_prints_leaves_the_id(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"models": ["a"], "concurrency": 1}
    assert ids(groups(**base)) == ids(groups(**{**base, **change}))
