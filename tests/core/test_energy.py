"""Joules an inference and its interval, by hand; and how often the interval holds the truth on a simulated GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, sqrt

import numpy as np
import pytest

from model_analyzer.core.energy import BY_POWER, Energy, energy_per_inference
from model_analyzer.core.histogram import Histogram
from model_analyzer.core.measurement import Slice
from model_analyzer.core.reading import MIG_ENERGY
from model_analyzer.core.reduce import read_telemetry
from model_analyzer.core.stats import Z975, SliceStats, t_quantile
from model_analyzer.core.telemetry import Page, Series, Summary, summarise
from model_analyzer.core.wording import counted

S = 1_000_000_000
GPU = "GPU-a"
DCGM, TRITON, POWER = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "nv_energy_consumption", "DCGM_FI_DEV_POWER_USAGE"
INFERENCES = 8


def moved(joules: float, seconds: float, fresh: int = 2) -> Summary:
    return Summary(fresh, fresh, 1.0, 1.0, fresh, joules, seconds)


def power(watts: float) -> Summary:
    return Summary(1, 1, watts, watts, watts)


RESET = Summary(3, 3, 1.0, 9.0, 12.0, falls=1)
ONE_REFRESH = Summary(2, 1, 1.0, 1.0, 1.0)


def piece(
    telemetry: Mapping[tuple[str, str], Summary],
    start_s: float = 0.0,
    replies: int = 100,
    seconds: float = 1.0,
    repeat: int = 0,
    cadences: Mapping[str, float] | None = None,
) -> Slice:
    """A slice of a second with 100 replies of 8 inferences: 800 infer/s. telemetry: (name, GPU) -> summary."""
    latency = Histogram.of(np.full(replies, 10_000_000))
    stats = SliceStats(round(seconds * S), S // 20, (), latency, round(start_s * S))
    found = {Series(*series): summary for series, summary in telemetry.items()}
    return Slice(
        "id", 0, "", 0.0, stats, {}, None, None, 0.0, 0.0, (), found, cadences or {"dcgm": 0.5}, {}, repeat=repeat
    )  # fmt: skip


def energy(*slices: Slice, gpus: Sequence[str] = (GPU,)) -> Energy:
    seconds = sum(one.seconds for one in slices)
    readings = read_telemetry([one.telemetry for one in slices], seconds, gpus, {}, {})[1]
    return energy_per_inference(slices, readings, INFERENCES, "no GPU")


def watts(*each: float, cadence_s: float = 0.5, repeat: int = 0) -> list[Slice]:
    """Slices 10 s apart with a counter that moved at these watts for half a second."""
    return [
        piece({(DCGM, GPU): moved(w / 2, 0.5)}, 10.0 * (n + 100 * repeat), repeat=repeat, cadences={"dcgm": cadence_s})
        for n, w in enumerate(each)
    ]


class TestFigure:
    def test_is_joules_over_the_inferences_of_the_seconds_that_they_were_used_in(self) -> None:
        # 60 J in 0.6 s at 800 infer/s, and 30 J in 0.2 s at 1,600 infer/s: 90 J for 480 + 320 inferences.
        found = energy(piece({(DCGM, GPU): moved(60, 0.6)}), piece({(DCGM, GPU): moved(30, 0.2)}, 2, replies=200))
        assert found.joules == pytest.approx(90 / 800)
        assert found.notes == ()

    def test_is_of_all_gpus_together(self) -> None:
        found = energy(
            piece({(DCGM, "GPU-a"): moved(50, 0.5), (DCGM, "GPU-b"): moved(100, 0.5)}), gpus=("GPU-a", "GPU-b")
        )
        assert found.joules == pytest.approx(150 / 400)

    def test_gpus_that_refresh_at_other_times_count_by_their_power(self) -> None:
        # 100 W and 200 W at 800 infer/s.
        telemetry = {(DCGM, "GPU-a"): moved(50, 0.5), (TRITON, "GPU-b"): moved(180, 0.9)}
        assert energy(piece(telemetry), gpus=("GPU-a", "GPU-b")).joules == pytest.approx(300 / 800)

    def test_leaves_out_slices_in_which_one_gpu_has_no_difference_and_says_so(self) -> None:
        whole = piece({(DCGM, "GPU-a"): moved(50, 0.5), (DCGM, "GPU-b"): moved(100, 0.5)})
        half = piece({(DCGM, "GPU-a"): moved(500, 0.5), (DCGM, "GPU-b"): ONE_REFRESH}, 2)
        found = energy(whole, half, gpus=("GPU-a", "GPU-b"))
        assert found.joules == pytest.approx(150 / 400)
        assert found.notes == (
            "energy per inference is from 1 of 2 slices: only these have a difference of every GPU's energy counter",
        )

    def test_leaves_out_a_slice_in_which_the_counter_fell_and_says_so(self) -> None:
        found = energy(piece({(DCGM, GPU): moved(50, 0.5)}), piece({(DCGM, GPU): RESET}, 2))
        assert found.joules == pytest.approx(50 / 400)
        assert (
            found.notes[0] == "the energy counter of GPU-a fell in 1 of 2 slices: it was reset, and is left out there"
        )

    def test_takes_tritons_counter_where_the_exporters_says_nothing(self) -> None:
        for other in (RESET, ONE_REFRESH, moved(0.0, 0.5)):
            found = energy(piece({(DCGM, GPU): other, (TRITON, GPU): moved(50, 0.5)}))
            assert (found.joules, found.notes) == (pytest.approx(50 / 400), ())


class TestAbsent:
    @pytest.mark.parametrize(
        ("summary", "why"),
        [
            (ONE_REFRESH, "dcgm did not refresh twice within one slice of the measured 1.0 s"),
            (RESET, "dcgm's energy counter fell: it was reset"),
            (moved(0.0, 0.5), "dcgm's energy counter stood still"),
        ],
    )
    def test_says_what_the_counter_did(self, summary: Summary, why: str) -> None:
        assert energy(piece({(DCGM, GPU): summary})) == Energy(None, None, why, why)

    def test_without_a_gpu(self) -> None:
        assert energy(piece({}), gpus=()) == Energy(None, None, "no GPU", "no GPU")

    def test_without_an_inference(self) -> None:
        found = energy(piece({(DCGM, GPU): moved(50, 0.5)}, replies=0))
        assert found == Energy(None, None, "no inference", "no inference")

    def test_of_a_mig_instance_because_the_counter_is_not_its_own(self) -> None:
        # An exporter repeats the whole GPU's counter on each instance's rows; Triton has one of the whole GPU.
        keys = ("GPU-a", "GPU-a/1", "GPU-a/2")
        telemetry = {(DCGM, key): moved(50, 0.5) for key in keys[1:]} | {(TRITON, keys[0]): moved(50, 0.5)}
        for gpus in (keys, keys[1:], keys[1:2]):
            assert energy(piece(telemetry), gpus=gpus) == Energy(None, None, MIG_ENERGY, MIG_ENERGY)


class TestPower:
    def test_stands_in_where_no_slice_has_a_difference_and_has_no_interval(self) -> None:
        found = energy(*(piece({(POWER, GPU): power(250), (DCGM, GPU): ONE_REFRESH}, n) for n in range(4)))
        assert found == Energy(pytest.approx(250 / 800), None, "", f"no interval: {BY_POWER}", (BY_POWER,))

    def test_of_one_gpu_beside_the_counter_of_another(self) -> None:
        telemetry = {(POWER, "GPU-a"): power(200), (DCGM, "GPU-b"): moved(50, 0.5)}
        assert energy(piece(telemetry), gpus=("GPU-a", "GPU-b")).joules == pytest.approx(300 / 800)

    def test_is_not_needed_where_counters_moved_in_different_slices(self) -> None:
        one, other = piece({(DCGM, "GPU-a"): moved(50, 0.5)}), piece({(DCGM, "GPU-b"): moved(100, 0.5)}, 2)
        found = energy(one, other, gpus=("GPU-a", "GPU-b"))
        assert found.joules == pytest.approx(300 / 800)
        assert found.interval_reason == "no interval: no slice has a difference of every GPU's energy counter"


class TestInterval:
    def test_of_equal_slices_is_what_the_refreshes_leave_open(self) -> None:
        # Each power is known to w sqrt(2 / 12) / T, w = T; the mean of three to a third of that in the square.
        assert energy(*watts(100, 100, 100)).half_width == pytest.approx(0.125 * Z975 / sqrt(6 * 3), rel=1e-4)

    def test_gpus_of_one_exporter_have_the_same_edges(self) -> None:
        telemetry = {(DCGM, key): moved(50, 0.5) for key in ("GPU-a", "GPU-b")}
        found = energy(*(piece(telemetry, n) for n in range(3)), gpus=("GPU-a", "GPU-b"))
        assert found.half_width == pytest.approx(0.25 * Z975 / sqrt(6 * 3), rel=1e-4)

    def test_of_a_long_slice_is_narrow(self) -> None:
        slices = [piece({(DCGM, GPU): moved(900, 9, 19)}, 20.0 * n, 1000, 10) for n in range(3)]
        # 19 refreshes, 0.5 s from each to the next.
        assert energy(*slices).half_width == pytest.approx(0.125 * Z975 / sqrt(6 * 3) / 18, rel=1e-4)

    def test_of_a_source_whose_cadence_is_not_told_goes_by_the_refreshes_that_it_showed(self) -> None:
        slices = [piece({(TRITON, GPU): moved(100, 1, 5)}, n) for n in range(3)]
        assert energy(*slices).half_width == pytest.approx(0.125 * Z975 / sqrt(6 * 3) / 4, rel=1e-4)

    def test_is_no_narrower_than_students_t_of_the_ratio(self) -> None:
        # Residuals of -5, 0 and 5 J over 1,200 inferences: sqrt(3 / 2 x 50) / 1,200 = 0.00722, times t(2) = 4.303.
        half_width = energy(*watts(90, 100, 110, cadence_s=0.001)).half_width
        assert half_width is not None
        assert 0.0310 <= half_width <= 2 * 0.0310

    @pytest.mark.parametrize("slices", [1, 2])
    def test_needs_three_slices(self, slices: int) -> None:
        found = energy(*watts(*[100.0] * slices), *(piece({}, 50 + n) for n in range(4)))
        assert found.joules == pytest.approx(0.125)
        assert found.half_width is None
        assert (
            found.interval_reason
            == f"no interval: only {counted(slices, 'slice')} with a difference of the energy counters"
        )

    def test_holds_what_lies_between_repeats(self) -> None:
        # 0.1125 and 0.1375 about 0.125: t(1) x sqrt(2 x 0.0125^2 / 2).
        found = energy(*watts(*[90] * 5, cadence_s=0.001), *watts(*[110] * 5, cadence_s=0.001, repeat=1))
        assert found.half_width == pytest.approx(t_quantile(1) * 0.0125, rel=1e-3)

    def test_is_none_where_a_repeat_has_no_energy(self) -> None:
        found = energy(*watts(90, 100, 110), piece({}, 50, repeat=1))
        assert found.joules == pytest.approx(0.125)
        assert found.interval_reason == "no interval: a repeat has no energy per inference of its own"


def drawn(rng: np.random.Generator, slices: int, cadence_s: float) -> list[Slice]:
    """Slices of a GPU of 100 W +- 10 % whose moves hold 2 s. Each refresh shows a value of up to a refresh before."""
    step_s, length_s, gap_s, poll_s = 0.01, 0.6, 0.3, 0.05
    steps = round((slices * (length_s + gap_s) + 2) / step_s)
    fade = exp(-step_s / 2.0)
    level = [rng.normal()]
    for push in rng.normal(size=steps - 1) * sqrt(1 - fade**2):
        level.append(fade * level[-1] + push)
    joules = np.concatenate([[0.0], np.cumsum(100 * (1 + 0.1 * np.array(level))) * step_s])
    refreshed = np.arange(0, steps * step_s, cadence_s) + rng.uniform(0, cadence_s)
    shown = np.interp(refreshed - rng.uniform(0, cadence_s, len(refreshed)), np.arange(steps + 1) * step_s, joules)
    found = []
    for n in range(slices):
        start_s = 1 + n * (length_s + gap_s)
        times = np.append(np.arange(start_s, start_s + length_s, poll_s), start_s + length_s)
        pages = []
        for time_s in times:
            last = int(np.searchsorted(refreshed, time_s, side="right")) - 1
            pages.append(Page("dcgm", "one", round(time_s * S), {Series(DCGM, GPU): shown[last]}, {}, last))
        summaries = summarise(pages, round(start_s * S), round((start_s + length_s) * S), [GPU])
        telemetry = {(series.name, series.subject): summary for series, summary in summaries.items()}
        found.append(piece(telemetry, start_s, 60, length_s, cadences={"dcgm": cadence_s}))
    return found


def held_by_plain_t(slices: Sequence[Slice], truth: float) -> bool:
    """Whether Student's t of the slices, as if they were independent and their edges known, holds the truth."""
    each = [joules for one in slices if (joules := energy(one).joules) is not None]
    half_width = t_quantile(len(each) - 1) * float(np.std(each, ddof=1)) / sqrt(len(each))
    return abs(float(np.mean(each)) - truth) <= half_width


@pytest.mark.parametrize("cadence_s", [0.1, 0.25])
def test_the_interval_holds_the_truth_more_often_than_plain_t(cadence_s: float) -> None:
    rng = np.random.default_rng(7)
    held = plain = 0
    for _ in range(100):
        slices = drawn(rng, 12, cadence_s)
        found = energy(*slices)
        assert found.joules is not None
        assert found.half_width is not None
        held += abs(found.joules - 0.125) <= found.half_width
        plain += held_by_plain_t(slices, 0.125)
    # 92 and 78 at 0.1 s, 98 and 94 at 0.25 s.
    assert held >= 90
    assert plain < held
