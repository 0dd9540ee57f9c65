"""Minutes of real pages, replayed through HTTP: what a phase's readings are. The seconds are the test's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from telemetry_pages import Replay, page

from model_analyzer.adapters.telemetry.dcgm import DcgmSampler
from model_analyzer.adapters.telemetry.triton import TritonSampler
from model_analyzer.core.gpus import GpuChoice, Selection, select_gpus
from model_analyzer.core.histogram import Histogram
from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Measurement, Slice
from model_analyzer.core.plan import Phase
from model_analyzer.core.reading import MIG_ENERGY
from model_analyzer.core.reduce import read_telemetry, reduce_phase
from model_analyzer.core.stats import SliceStats
from model_analyzer.core.stopping import Verdict
from model_analyzer.core.telemetry import Gpu, Page, Reading, cadences, summarise
from model_analyzer.core.variant import Variant

SECOND = 1_000_000_000
MIB = 2**20
T4 = "GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a"
H100 = [
    "GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005",
    "GPU-bc5610b9-79c8-fedd-8899-07539c7f868a",
    "GPU-fbc2c554-4d37-8938-0032-f923bad0f716",
    "GPU-a65a773d-52bb-bcc1-a8ee-f78c3faa2e2d",
]
Readings = dict[str, dict[str, Reading]]


def set_value(text: str, field: str, value: float) -> str:
    """The page with this value in every row of a field."""
    changed, count = re.subn(rf"^({field}{{.*}}) \S+$", rf"\1 {value}", text, flags=re.MULTILINE)
    assert count, field
    return changed


def without_gpu(text: str, index: int) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if f'gpu="{index}"' not in line)


def scrape_each_second(replay: Replay, seconds: int, at: Callable[[int], str]) -> list[Page]:
    sampler = DcgmSampler(replay.url)
    pages = []
    for second in range(seconds + 1):
        replay.serve(at(second))
        pages.append(replace(sampler.sample(), time_ns=second * SECOND))
    return pages


def readings(pages: Sequence[Page], start: float, end: float) -> Readings:
    """As a phase of one slice reads them."""
    gpus = select_gpus(pages, GpuChoice()).gpus
    summaries = summarise(pages, int(start * SECOND), int(end * SECOND), gpus)
    problems = {page.source: page.problem for page in pages[-1:] if page.problem}
    return read_telemetry([summaries], end - start, gpus, problems, cadences(pages))[1]


def busy(second: int, every: int = 30, offset: int = 15) -> str:
    """A T4 whose exporter refreshes at 15 s, 45 s, 75 s, ...; each refresh shows more."""
    number = (second + every - offset) // every
    text = page("dcgm/t4_under_load_no_help_type.prom")
    text = set_value(text, "DCGM_FI_DEV_GPU_UTIL", 50 + number)
    text = set_value(text, "DCGM_FI_DEV_FB_USED", 5120 + 100 * number)
    return set_value(text, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 15152422938 + 2_000_000 * number)


def test_an_exporter_at_its_default_of_30_s(replay: Replay) -> None:
    pages = scrape_each_second(replay, 90, busy)
    found = readings(pages, 0, 90)[T4]
    assert found["gpu_utilization"] == Reading(pytest.approx(0.52), "dcgm", 91, 3)  # 51, 52, 53 %
    assert found["gpu_used_memory"].value == 5420 * MIB
    assert found["gpu_energy"].value == pytest.approx(2000 / 30 * 90)
    assert (found["gpu_fresh_samples"].value, found["gpu_refresh_interval"].value) == (3, 30)


def test_a_phase_between_two_refreshes_is_stale_and_says_the_cadence(replay: Replay) -> None:
    pages = scrape_each_second(replay, 90, busy)
    found = readings(pages, 50, 60)[T4]
    assert found["gpu_utilization"] == Reading(
        None, "dcgm", 11, 0, "stale: dcgm did not refresh within the measured 10.0 s (it does every 30.0 s)"
    )
    assert found["gpu_fresh_samples"].value == 0
    assert found["gpu_refresh_interval"].value == 30


def test_one_refresh_is_a_reading_and_no_energy(replay: Replay) -> None:
    found = readings(scrape_each_second(replay, 60, busy), 40, 50)[T4]
    assert found["gpu_utilization"].value == pytest.approx(0.52)
    assert found["gpu_energy"].value is None
    assert "did not refresh twice" in str(found["gpu_energy"].reason)


def test_a_cadence_that_nobody_can_tell_yet_has_its_reason(replay: Replay) -> None:
    found = readings(scrape_each_second(replay, 20, busy), 0, 20)[T4]["gpu_refresh_interval"]
    assert (found.value, found.reason) == (None, "fewer than two refreshes were seen")


def h100(second: int) -> str:
    """A refresh each second; GPU 3 goes away at 5 s, and GPU 1 is there from 6 s on."""
    text = set_value(page("dcgm/h100x8_pod_mapped.prom"), "DCGM_FI_DEV_POWER_USAGE", 60 + second)
    text = without_gpu(text, 3) if second >= 5 else text
    return without_gpu(text, 1) if second < 6 else text


def test_a_gpu_that_vanishes_in_mid_phase_keeps_what_was_read(replay: Replay) -> None:
    found = readings(scrape_each_second(replay, 10, h100), 0, 10)
    assert found[H100[3]]["gpu_power_usage"] == Reading(pytest.approx(62.5), "dcgm", 5, 4)
    assert found[H100[0]]["gpu_power_usage"] == Reading(pytest.approx(65.5), "dcgm", 11, 10)


def test_a_gpu_that_appears_in_mid_phase_is_read_from_then_on(replay: Replay) -> None:
    found = readings(scrape_each_second(replay, 10, h100), 0, 10)
    assert found[H100[1]]["gpu_power_usage"] == Reading(pytest.approx(68), "dcgm", 5, 5)


def test_a_gpu_that_is_gone_has_no_figure_of_the_next_phase(replay: Replay) -> None:
    found = readings(scrape_each_second(replay, 10, h100), 7, 10)[H100[3]]["gpu_power_usage"]
    assert found.value is None
    assert found.reason == "no scrape within the measured 3.0 s showed it"


def test_a_field_that_the_exporter_shows_of_some_gpus_only(replay: Replay) -> None:
    # The real page has no MEM_COPY_UTIL of GPUs 6 and 7.
    found = readings(scrape_each_second(replay, 3, h100), 0, 3)
    told = {reading["gpu_memory_utilization_max"].reason for reading in found.values()}
    assert told == {None, "no source reports DCGM_FI_DEV_MEM_COPY_UTIL or DCGM_FI_PROF_DRAM_ACTIVE"}


def mig(second: int) -> str:
    """The T4's page as that of two MIG instances: (UUID, GPU_I_ID) tells them apart, and there is no GPU_UTIL."""
    bare = re.sub(r"^DCGM_FI_DEV_(GPU|MEM_COPY)_UTIL.*\n", "", busy(second, 1, 0), flags=re.MULTILINE)
    instances = [("1", "3g.20gb", 0.5), ("2", "1g.5gb", 0.125)]
    return "".join(
        set_value(
            bare.replace('modelName="Tesla T4"', f'modelName="A100",GPU_I_PROFILE="{profile}",GPU_I_ID="{instance}"'),
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
            active,
        )
        for instance, profile, active in instances
    )


def test_mig_instances_have_readings_of_their_own(replay: Replay) -> None:
    pages = scrape_each_second(replay, 5, mig)
    found = readings(pages, 0, 5)
    assert {key: each["gpu_utilization"].value for key, each in found.items()} == {f"{T4}/1": 0.5, f"{T4}/2": 0.125}
    assert all("graphics engine" in str(each["gpu_utilization"].note) for each in found.values())
    assert pages[0].gpus[f"{T4}/2"] == Gpu("A100 MIG 1g.5gb", "0")


def test_a_mig_instance_has_its_gpus_power_with_a_note_and_no_energy(replay: Replay) -> None:
    for found in readings(scrape_each_second(replay, 5, mig), 0, 5).values():
        assert found["gpu_power_usage"].note == "GPU power of a MIG instance is that of its whole GPU"
        assert (found["gpu_energy"].value, found["gpu_energy"].reason) == (None, MIG_ENERGY)


def energy_of(pages: Sequence[Page], *starts: int) -> Measurement:
    """The row of a phase with slices of 10 s from these seconds on, each with 1,000 replies of 2 inferences."""
    gpus = select_gpus(pages, GpuChoice()).gpus
    latency = Histogram.of(np.full(1000, 10_000_000))
    slices = []
    for start in starts:
        stats = SliceStats(10 * SECOND, SECOND, (100,) * 10, latency, start * SECOND)
        seen = summarise(pages, start * SECOND, (start + 10) * SECOND, gpus)
        at = f"2026-01-01T10:00:{start:02}.000+00:00"
        slices.append(
            Slice("id", 0, at, 0.0, stats, {}, None, "not read", 0.0, 0.0, gpus, seen, cadences(pages), {})
        )  # fmt: skip
    phase = Phase("id", Variant("m", "m"), 2, Load("concurrency", 1), InputSource(), "http")
    return reduce_phase(phase, slices, Verdict(True, True, (), None, None), 2)


def test_joules_an_inference_by_a_counter_that_moves_each_second(replay: Replay) -> None:
    # 2,000 J a second, 200 inferences a second. Ten refreshes a slice, the first at its second second: 9 s known to a
    # second at either end, three times.
    found = energy_of(scrape_each_second(replay, 40, lambda second: busy(second, 1, 0)), 0, 15, 30).values
    assert found["energy_per_inference"] == pytest.approx(10)
    assert found["energy_per_inference_ci"] == pytest.approx(10 * 1.959964 / sqrt(6 * 3) / 9, rel=1e-3)


def test_joules_an_inference_leave_out_the_slice_in_which_the_counter_was_reset(replay: Replay) -> None:
    def reset(second: int) -> str:
        text = busy(second, 1, 0)
        return set_value(text, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 2_000_000 * second) if second >= 20 else text

    found = energy_of(scrape_each_second(replay, 40, reset), 0, 15, 30)
    assert found.values["energy_per_inference"] == pytest.approx(10)
    assert found.reasons["energy_per_inference_ci"].startswith("no interval: only 2 slices")
    assert f"the energy counter of {T4} fell in 1 of 3 slices: it was reset, and is left out there" in found.notes


def test_an_exporter_that_is_slower_than_the_slices_gives_average_power_and_no_interval(replay: Replay) -> None:
    # Of the page's 30 s refreshes one falls into the first slice.
    found = energy_of(scrape_each_second(replay, 60, busy), 10, 30, 40)
    power = found.gpus[T4]["gpu_power_usage"].value
    assert power is not None
    assert found.values["energy_per_inference"] == pytest.approx(power / 200)
    assert found.reasons["energy_per_inference_ci"] == "no interval: energy is average power x time"


def test_joules_an_inference_are_not_told_of_mig_instances(replay: Replay) -> None:
    found = energy_of(scrape_each_second(replay, 40, mig), 0, 15, 30)
    assert found.values["energy_per_inference"] is None
    assert found.values["gpu_energy"] is None
    assert {found.reasons[tag] for tag in ("energy_per_inference", "energy_per_inference_ci", "gpu_energy")} == {
        MIG_ENERGY
    }


def choose(replay: Replay, choice: GpuChoice, *others: Page) -> Selection:
    return select_gpus([*scrape_each_second(replay, 0, lambda _: page("dcgm/h100x8_pod_mapped.prom")), *others], choice)


def test_one_of_eight_gpus_by_the_pod_that_has_it(replay: Replay) -> None:
    chosen = choose(replay, GpuChoice(None, "vllm-agg-0-vllmdecodeworker-s65j5", "dynamo-workload"))
    assert (chosen.gpus, chosen.notes) == ((H100[0],), ())


def test_one_of_eight_gpus_by_tritons_list(replay: Replay) -> None:
    replay.serve(f'nv_gpu_utilization{{gpu_uuid="{H100[2]}"}} 0.5\n')
    chosen = choose(replay, GpuChoice(), TritonSampler(replay.url).sample())
    assert (chosen.gpus, chosen.notes) == ((H100[2],), ())


@pytest.mark.parametrize("wanted", ["3", H100[3]])
def test_one_of_eight_gpus_by_what_the_job_asks_for(replay: Replay, wanted: str) -> None:
    chosen = choose(replay, GpuChoice((wanted,)))
    assert (chosen.gpus, chosen.notes) == ((H100[3],), ())


def test_eight_gpus_of_nobody_known_are_shown_with_a_note(replay: Replay) -> None:
    chosen = choose(replay, GpuChoice())
    assert len(chosen.gpus) == 8
    assert "all 8 GPUs of the exporter" in chosen.notes[0]


def test_a_source_that_fails_for_a_while_costs_that_while(replay: Replay) -> None:
    sampler = DcgmSampler(replay.url)
    pages = []
    bad = {3: (404, "not found"), 4: (200, ""), 5: (200, "<html>login</html>"), 6: (503, "")}
    for second in range(11):
        replay.status, text = bad.get(second, (200, busy(second, 1, 0)))
        replay.serve(text)
        pages.append(replace(sampler.sample(), time_ns=second * SECOND))
    assert [second for second, scraped in enumerate(pages) if scraped.problem] == [3, 4, 5, 6]
    found = readings(pages, 0, 10)[T4]["gpu_utilization"]
    assert (found.samples, found.fresh, found.reason) == (7, 6, None)


def test_a_source_that_always_fails_is_the_reason_of_each_cell(replay: Replay) -> None:
    replay.status = 404
    pages = [DcgmSampler(replay.url).sample()]
    summaries = summarise(pages, 0, SECOND, [T4])
    found = read_telemetry([summaries], 1.0, [T4], {"dcgm": str(pages[0].problem), "host": "gone"}, {})[1][T4]
    assert {
        reading.reason for tag, reading in found.items() if tag not in ("gpu_fresh_samples", "gpu_refresh_interval")
    } == {f"dcgm: {replay.url}: HTTP 404"}


def test_a_slice_between_two_scrapes_does_not_say_that_the_exporter_lacks_the_metric() -> None:
    found = read_telemetry([{}], 0.2, [T4], {}, {"dcgm": 5.0})[1][T4]
    assert found["gpu_power_usage"].reason == "no scrape within the measured 0.2 s showed it"
