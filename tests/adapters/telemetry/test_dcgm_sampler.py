from __future__ import annotations

import re

import pytest
from telemetry_pages import Replay, page, row

from model_analyzer.adapters.telemetry.dcgm import DcgmSampler, is_blank, page_of
from model_analyzer.adapters.telemetry.prometheus import Head
from model_analyzer.core.telemetry import Gpu, GpuUser, Page, Series, cadence_s, summarise

MIB = 2**20
T4 = "GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a"
SECOND = 1_000_000_000


def scrape(replay: Replay, text: str) -> Page:
    replay.serve(text)
    scraped = DcgmSampler(replay.url).sample()
    assert scraped.problem is None
    return scraped


def test_a_real_page_comes_in_project_units(replay: Replay) -> None:
    values = scrape(replay, page("dcgm/t4_under_load_no_help_type.prom")).values
    expected = {
        "DCGM_FI_DEV_GPU_UTIL": 0.91,
        "DCGM_FI_DEV_MEM_COPY_UTIL": 0.73,
        "DCGM_FI_DEV_FB_USED": 5120 * MIB,
        "DCGM_FI_DEV_FB_FREE": 9791 * MIB,
        "DCGM_FI_DEV_FB_RESERVED": 447 * MIB,
        "DCGM_FI_DEV_POWER_USAGE": 68.244,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 15152422.938,
        "DCGM_FI_DEV_SM_CLOCK": 660e6,
        "DCGM_FI_DEV_GPU_TEMP": 74,
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.156205,
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.005822,
        "DCGM_FI_PROF_DRAM_ACTIVE": 0.092781,
    }
    assert {name: values[Series(name, T4)] for name in expected} == pytest.approx(expected)


def test_a_page_with_help_and_type_lines_gives_the_same_names(replay: Replay) -> None:
    bare = scrape(replay, page("dcgm/t4_under_load_no_help_type.prom"))
    full = scrape(replay, page("dcgm/l4_gpu-operator_full.prom"))
    assert {series.name for series in bare.values} <= {series.name for series in full.values}


def test_a_gpu_is_described(replay: Replay) -> None:
    assert scrape(replay, page("dcgm/t4_under_load_no_help_type.prom")).gpus == {T4: Gpu("Tesla T4", "0")}


def test_the_one_gpu_of_eight_that_a_pod_has_is_told_apart(replay: Replay) -> None:
    scraped = scrape(replay, page("dcgm/h100x8_pod_mapped.prom"))
    user = GpuUser("vllm-agg-0-vllmdecodeworker-s65j5", "dynamo-workload", "main")
    assert len(scraped.gpus) == 8
    mapped = {key: gpu for key, gpu in scraped.gpus.items() if gpu.users}
    assert mapped == {"GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005": Gpu("NVIDIA H100 80GB HBM3", "0", (user,))}


@pytest.mark.parametrize(
    "labels",
    [
        {"pod": "p", "namespace": "n", "container": "c"},
        {"pod_name": "p", "pod_namespace": "n", "container_name": "c"},
        {
            "exported_pod": "p",
            "exported_namespace": "n",
            "exported_container": "c",
            "pod": "nvidia-dcgm-exporter-x",
            "namespace": "gpu-operator",
            "container": "exporter",
        },
    ],
    ids=["of today", "old namespace", "passed on by Prometheus"],
)
def test_the_user_of_a_gpu_in_every_spelling(replay: Replay, labels: dict[str, str]) -> None:
    scraped = scrape(replay, row("DCGM_FI_DEV_GPU_UTIL", 10, **labels))
    assert scraped.gpus["GPU-a"].users == (GpuUser("p", "n", "c"),)


@pytest.mark.parametrize("labels", [{}, {"pod": "", "namespace": "", "container": ""}], ids=["absent", "empty"])
def test_a_gpu_of_nobody_has_no_user(replay: Replay, labels: dict[str, str]) -> None:
    assert scrape(replay, row("DCGM_FI_DEV_GPU_UTIL", 10, **labels)).gpus["GPU-a"].users == ()


SHARED = [row("DCGM_FI_DEV_FB_USED", mib, pod=pod, namespace="n") for pod, mib in (("a", 10), ("b", 30), ("c", 20))]


@pytest.mark.parametrize("rows", [SHARED, SHARED[::-1]], ids=["in order", "reversed"])
@pytest.mark.parametrize(("pod", "mib"), [("a", 10), ("c", 20), ("elsewhere", 30), ("", 30)])
def test_of_a_shared_gpu_our_pods_row_counts_else_the_largest(
    replay: Replay, rows: list[str], pod: str, mib: int
) -> None:
    replay.serve("".join(rows))
    scraped = DcgmSampler(replay.url, pod, "n" if pod else "").sample()
    assert scraped.values == {Series("DCGM_FI_DEV_FB_USED", "GPU-a"): mib * MIB}
    assert {user.pod for user in scraped.gpus["GPU-a"].users} == {"a", "b", "c"}


def test_both_spellings_of_hostname_are_the_same_page(replay: Replay) -> None:
    text = page("dcgm/h100x8_pod_mapped.prom")
    old, new = scrape(replay, text), scrape(replay, text.replace("Hostname=", "hostname="))
    assert (old.values, old.gpus, old.fingerprint) == (new.values, new.gpus, new.fingerprint)


def test_mig_instances_of_one_parent_are_kept_apart(replay: Replay) -> None:
    text = "".join(
        row("DCGM_FI_PROF_GR_ENGINE_ACTIVE", value, GPU_I_PROFILE=profile, GPU_I_ID=instance)
        + row("DCGM_FI_DEV_FB_USED", mib, GPU_I_PROFILE=profile, GPU_I_ID=instance)
        for value, mib, profile, instance in ((0.9, 100, "3g.20gb", "1"), (0.1, 50, "1g.5gb", "0"))
    )
    scraped = scrape(replay, text)
    assert {series.subject: value for series, value in scraped.values.items() if "FB_USED" in series.name} == {
        "GPU-a/1": 100 * MIB,
        "GPU-a/0": 50 * MIB,
    }
    assert scraped.gpus["GPU-a/1"] == Gpu("NVIDIA A100-SXM4-80GB MIG 3g.20gb", "0")


# dcgm_structs.h: blank, not found, not supported, not permissioned. The exporter's README shows 9223372036854775794.
INT64_SENTINELS = range(0x7FFFFFFFFFFFFFF0, 0x7FFFFFFFFFFFFFF4)


@pytest.mark.parametrize(
    "sentinel",
    [
        *range(0x7FFFFFF0, 0x7FFFFFF4),
        *(140737488355328.0 + n for n in range(4)),
        *INT64_SENTINELS,
    ],
)
def test_a_blank_sentinel_is_absent(replay: Replay, sentinel: float) -> None:
    text = f"{sentinel:f}" if isinstance(sentinel, float) else str(sentinel)
    scraped = scrape(replay, row("DCGM_FI_DEV_MEM_COPY_UTIL", text) + row("DCGM_FI_DEV_GPU_UTIL", 7))
    assert list(scraped.values) == [Series("DCGM_FI_DEV_GPU_UTIL", "GPU-a")]


@pytest.mark.parametrize("value", [0, 1, 100, 15152422938, 4742776, 81559, 2147483648])
def test_a_plain_value_is_no_sentinel(value: float) -> None:
    assert not is_blank(float(value))


def test_a_zero_is_a_value(replay: Replay) -> None:
    assert scrape(replay, row("DCGM_FI_DEV_GPU_UTIL", 0)).values == {Series("DCGM_FI_DEV_GPU_UTIL", "GPU-a"): 0.0}


def test_rows_that_are_no_gpus_are_left_out(replay: Replay) -> None:
    nvswitch = 'DCGM_FI_DEV_NVSWITCH_TEMPERATURE_CURRENT{nvswitch="nvswitch0",Hostname="n"} 40\n'
    scraped = scrape(replay, nvswitch + row("DCGM_FI_DEV_GPU_UTIL", 5))
    assert list(scraped.gpus) == ["GPU-a"]
    assert {series.subject for series in scraped.values} == {"GPU-a"}


def test_a_page_without_a_gpu_is_a_problem(replay: Replay) -> None:
    replay.serve("# HELP go_goroutines\n# TYPE go_goroutines gauge\ngo_goroutines 7\n")
    assert "no GPU rows" in str(DcgmSampler(replay.url).sample().problem)


def test_the_fingerprint_is_the_values(replay: Replay) -> None:
    text = page("dcgm/t4_under_load_no_help_type.prom")
    first = scrape(replay, text).fingerprint
    assert first is not None
    assert scrape(replay, text).fingerprint == first
    assert scrape(replay, text.replace("68.244000", "68.245000")).fingerprint != first


def test_a_pod_that_gets_a_gpu_is_no_refresh(replay: Replay) -> None:
    # The exporter looks pods up when it is scraped, and reads the GPUs on its own clock.
    text = page("dcgm/t4_under_load_no_help_type.prom")
    mapped = text.replace('Hostname="cp-bm14r7"', 'Hostname="cp-bm14r7",pod="p",namespace="n"')
    assert scrape(replay, text).fingerprint == scrape(replay, mapped).fingerprint


def test_an_exporter_is_its_own_origin(replay: Replay) -> None:
    assert scrape(replay, row("DCGM_FI_DEV_GPU_UTIL", 0)).origin == replay.url


@pytest.mark.parametrize(("cadence", "refreshes"), [(30.0, 1), (1.0, 59), (0.1, 60)])
def test_replayed_cadences_are_counted_and_inferred(replay: Replay, cadence: float, refreshes: int) -> None:
    """A minute, scraped every second; the times are the test's, the pages go through the server."""
    sampler = DcgmSampler(replay.url)
    pages = []
    for second in range(61):
        reading = int((second + 0.5) / cadence)
        replay.serve(row("DCGM_FI_DEV_FB_USED", 1000 + reading) + row("DCGM_FI_DEV_GPU_UTIL", reading % 100))
        scraped = sampler.sample()
        pages.append(Page("dcgm", scraped.origin, second * SECOND, scraped.values, scraped.gpus, scraped.fingerprint))
    summary = summarise(pages, 0, 60 * SECOND, ["GPU-a"])[Series("DCGM_FI_DEV_FB_USED", "GPU-a")]
    assert summary.samples == 61
    assert abs(summary.fresh - refreshes) <= 1
    inferred = cadence_s(pages, "dcgm")
    assert inferred == pytest.approx(max(cadence, 1.0), abs=1.0)


# The field names of dcgm-exporter 4.9.0, in base units: old name -> new name, factor.
RENAMED = {
    "DCGM_FI_DEV_GPU_UTIL": ("DCGM_FI_DEV_GPU_UTIL_RATIO", 0.01),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("DCGM_FI_DEV_MEMORY_UTIL_RATIO", 0.01),
    "DCGM_FI_DEV_FB_USED": ("DCGM_FI_DEV_FB_USED_BYTES", MIB),
    "DCGM_FI_DEV_FB_FREE": ("DCGM_FI_DEV_FB_FREE_BYTES", MIB),
    "DCGM_FI_DEV_FB_RESERVED": ("DCGM_FI_DEV_FB_RESERVED_BYTES", MIB),
    "DCGM_FI_DEV_POWER_USAGE": ("DCGM_FI_DEV_BOARD_POWER_WATTS", 1),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 1e-3),
    "DCGM_FI_DEV_SM_CLOCK": ("DCGM_FI_DEV_SM_CLOCK_HERTZ", 1e6),
    "DCGM_FI_DEV_MEM_CLOCK": ("DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", 1e6),
    "DCGM_FI_DEV_GPU_TEMP": ("DCGM_FI_DEV_GPU_TEMP_CELSIUS", 1),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO", 1),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("DCGM_FI_PROF_TENSOR_UTIL_RATIO", 1),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("DCGM_FI_PROF_DRAM_UTIL_RATIO", 1),
}


def as_of_4_9(text: str) -> str:
    def rename(match: re.Match[str]) -> str:
        name, factor = RENAMED.get(match[1], (match[1], 1))
        return f"{name}{match[2]} {float(match[3]) * factor!r}"

    return re.sub(r"^(\w+)({.*}) (\S+)$", rename, text, flags=re.MULTILINE).replace(
        "DCGM_FI_DRIVER_VERSION=", "DCGM_FI_SYSTEM_DRIVER_VERSION="
    )


def test_the_names_of_exporter_4_9_give_the_same_figures(replay: Replay) -> None:
    text = page("dcgm/t4_under_load_no_help_type.prom")
    old, new = scrape(replay, text).values, scrape(replay, as_of_4_9(text)).values
    for name in RENAMED:
        assert new[Series(name, T4)] == pytest.approx(old[Series(name, T4)])


def test_exporter_4_9_shows_the_total_memory_and_the_last_xid(replay: Replay) -> None:
    text = row("DCGM_FI_DEV_FB_CAPACITY_BYTES", 81559 * MIB) + row("DCGM_FI_DEV_XID_ERROR", 31)
    assert scrape(replay, text).values == {
        Series("DCGM_FI_DEV_FB_TOTAL", "GPU-a"): 81559 * MIB,
        Series("DCGM_FI_DEV_XID_ERRORS", "GPU-a"): 31,
    }


def test_rows_in_another_order_are_no_refresh(replay: Replay) -> None:
    text = page("dcgm/h100x8_pod_mapped.prom")
    turned = "\n".join(reversed(text.strip().splitlines())) + "\n"
    assert scrape(replay, text).fingerprint == scrape(replay, turned).fingerprint


def test_a_broken_line_costs_that_line_only_and_is_told(replay: Replay) -> None:
    replay.serve('DCGM_FI_DEV_FB_USED{gpu="0 1\n' + row("DCGM_FI_DEV_GPU_UTIL", 5) + "DCGM_FI_DEV_GPU_TEMP{} x\n")
    scraped = DcgmSampler(replay.url).sample()
    assert scraped.values == {Series("DCGM_FI_DEV_GPU_UTIL", "GPU-a"): 0.05}
    assert scraped.problem == f'{replay.url}: cannot read the line `DCGM_FI_DEV_FB_USED{{gpu="0 1` and 1 more'


def test_a_broken_line_of_another_metric_is_nothing_to_us(replay: Replay) -> None:
    scraped = scrape(replay, "go_build_info{broken 1\n" + row("DCGM_FI_DEV_GPU_UTIL", 5))
    assert scraped.values == {Series("DCGM_FI_DEV_GPU_UTIL", "GPU-a"): 0.05}


def test_a_percentage_under_the_name_of_a_ratio_is_seen() -> None:
    # DCGM 4.6: field 203, GPU utilization in percent, is called DCGM_FI_DEV_GPU_UTIL_RATIO in its dcgm_fields.py.
    for value, ratio in ((0.37, 0.37), (37, 0.37), (1.0, 1.0), (0, 0.0)):
        found = page_of([(Head("DCGM_FI_DEV_GPU_UTIL_RATIO", {"UUID": "GPU-a"}), value)], 0, "one").values
        assert found == {Series("DCGM_FI_DEV_GPU_UTIL", "GPU-a"): pytest.approx(ratio)}
