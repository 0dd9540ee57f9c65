from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_analyzer.core.telemetry import (
    SLACK_NS,
    Gpu,
    Page,
    Series,
    Summaries,
    Summary,
    cadence_s,
    cadences,
    counter_deltas,
    merge,
    summaries_from_json,
    summaries_to_json,
    summarise,
)

S = 1_000_000_000
USED = Series("DCGM_FI_DEV_FB_USED", "GPU-a")
ENERGY = Series("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "GPU-a")
LEFT = Series("host memory available", "")


def dcgm(second: float, values: Mapping[Series, float], fingerprint: int = 0, origin: str = "one") -> Page:
    gpus = {series.subject: Gpu() for series in values}
    return Page("dcgm", origin, round(second * S), values, gpus, fingerprint)


def failed(second: float) -> Page:
    return Page("dcgm", "one", round(second * S), problem="no page within 2 s")


def scraped(cadence: float, every: float, until: float, phase: float = 0.0) -> list[Page]:
    """An exporter that refreshes at phase + k * cadence, scraped every `every` seconds; the value is the refresh's number."""
    pages = []
    for number in range(round(until / every) + 1):
        refresh = int((number * every - phase) // cadence)
        pages.append(dcgm(number * every, {USED: float(refresh), ENERGY: 100.0 * refresh * cadence}, refresh))
    return pages


def over(pages: Iterable[Page], start: float, end: float, gpus: Iterable[str] = ("GPU-a",)) -> Summaries:
    return summarise(pages, round(start * S), round(end * S), gpus)


class TestFreshness:
    def test_a_repeated_value_counts_once(self) -> None:
        summary = over(scraped(cadence=30, every=1, until=90, phase=15), 0, 90)[USED]
        assert (summary.samples, summary.fresh) == (91, 3)

    def test_a_short_slice_between_two_refreshes_has_samples_and_no_reading(self) -> None:
        summary = over(scraped(cadence=30, every=1, until=90, phase=15), 20, 23)[USED]
        assert (summary.samples, summary.fresh) == (4, 0)

    def test_a_source_of_our_own_pace_is_fresh_at_each_scrape_but_the_first(self) -> None:
        assert over(scraped(cadence=1, every=1, until=10, phase=0.5), 0, 10)[USED].fresh == 10

    def test_a_faster_source_is_fresh_at_each_scrape_but_the_first(self) -> None:
        assert over(scraped(cadence=0.1, every=1, until=10, phase=0.05), 0, 10)[USED].fresh == 10

    def test_the_first_page_of_a_slice_may_show_an_older_state(self) -> None:
        # It refreshed at 9.5 s, before the slice; only the change seen at 11 s happened inside.
        pages = [dcgm(9, {USED: 1}, 1), dcgm(10, {USED: 9}, 2), dcgm(11, {USED: 3}, 3)]
        summary = over(pages, 10, 11)[USED]
        assert (summary.fresh, summary.high) == (1, 3)

    def test_a_change_between_a_scrape_before_and_one_inside_is_not_counted(self) -> None:
        pages = [dcgm(9, {USED: 1}, 1), dcgm(11, {USED: 3}, 2)]
        assert over(pages, 10, 12)[USED].fresh == 0

    def test_a_scrape_just_before_the_slice_is_its_first(self) -> None:
        just_before = 10 - SLACK_NS / S
        assert over([dcgm(just_before, {USED: 1}, 1), dcgm(11, {USED: 3}, 2)], 10, 12)[USED].fresh == 1
        assert over([dcgm(just_before - 0.001, {USED: 1}, 1), dcgm(11, {USED: 3}, 2)], 10, 12)[USED].fresh == 0

    def test_a_scrape_after_the_slice_is_not_its_own(self) -> None:
        assert over([dcgm(10, {USED: 1}, 1), dcgm(12.001, {USED: 3}, 2)], 10, 12)[USED].fresh == 0

    def test_a_refresh_to_the_same_value_counts_where_another_value_shows_it(self) -> None:
        pages = [dcgm(10, {USED: 5}, 1), dcgm(11, {USED: 5}, 2)]
        summary = over(pages, 10, 12)[USED]
        assert (summary.fresh, summary.low, summary.high) == (1, 5, 5)

    def test_a_live_source_is_fresh_at_each_scrape(self) -> None:
        pages = [Page("host", "here", second * S, {LEFT: float(second)}) for second in (1, 2, 3)]
        assert over(pages, 0, 4)[LEFT] == Summary(3, 3, 1, 3, 6)

    @given(
        cadence=st.floats(0.05, 40),
        every=st.floats(0.1, 3),
        phase=st.floats(0, 40),
        start=st.floats(0, 30),
        length=st.floats(0, 30),
    )
    def test_no_more_refreshes_than_there_were(
        self, cadence: float, every: float, phase: float, start: float, length: float
    ) -> None:
        found = over(scraped(cadence, every, 60, phase), start, start + length).get(USED)
        assert (found.fresh if found else 0) <= (length + SLACK_NS / S) / cadence + 1


class TestSummarise:
    def test_low_high_and_total_are_of_the_fresh_values(self) -> None:
        pages = [dcgm(second, {USED: value}, second) for second, value in enumerate((9, 4, 8, 6))]
        assert over(pages, 0, 3)[USED] == Summary(4, 3, 4, 8, 18)

    def test_pages_may_come_in_any_order(self) -> None:
        pages = scraped(cadence=2, every=1, until=20)
        assert over(reversed(pages), 0, 20) == over(pages, 0, 20)

    def test_a_failed_scrape_is_no_sample_and_breaks_nothing(self) -> None:
        pages = [dcgm(0, {USED: 1}, 1), failed(1), dcgm(2, {USED: 2}, 2)]
        summary = over(pages, 0, 2)[USED]
        assert (summary.samples, summary.fresh) == (2, 1)

    def test_a_source_that_always_fails_leaves_nothing(self) -> None:
        assert over([failed(second) for second in range(5)], 0, 5) == {}

    def test_a_gpu_that_appears_is_read_from_then_on(self) -> None:
        late = Series(USED.name, "GPU-b")
        pages = [dcgm(0, {USED: 1}, 1), dcgm(1, {USED: 1, late: 7}, 2), dcgm(2, {USED: 1, late: 8}, 3)]
        summary = over(pages, 0, 2, ["GPU-a", "GPU-b"])[late]
        assert (summary.samples, summary.fresh, summary.low, summary.high) == (2, 2, 7, 8)

    def test_a_gpu_that_vanishes_keeps_what_was_read(self) -> None:
        gone = Series(USED.name, "GPU-b")
        pages = [dcgm(0, {USED: 1, gone: 5}, 1), dcgm(1, {USED: 1, gone: 7}, 2), dcgm(2, {USED: 1}, 3)]
        summary = over(pages, 0, 2, ["GPU-a", "GPU-b"])[gone]
        assert (summary.samples, summary.fresh, summary.high) == (2, 1, 7)

    def test_gpus_that_do_not_count_are_left_out(self) -> None:
        other = Series(USED.name, "GPU-b")
        assert over([dcgm(0, {USED: 1, other: 2})], 0, 1) == {USED: Summary(1)}

    def test_values_that_no_metric_asks_for_are_left_out(self) -> None:
        assert over([dcgm(0, {Series("DCGM_FI_DEV_ENC_UTIL", "GPU-a"): 1})], 0, 1) == {}

    def test_exporters_are_judged_apart(self) -> None:
        # Each page of the second exporter differs from the one of the first before it; neither has refreshed.
        second = Series(USED.name, "GPU-b")
        pages = []
        for at in range(4):
            pages += [dcgm(at, {USED: 1}, 11, "one"), dcgm(at + 0.5, {second: 2}, 22, "two")]
        found = over(pages, 0, 4, ["GPU-a", "GPU-b"])
        assert (found[USED].fresh, found[second].fresh) == (0, 0)


class TestCounters:
    def test_a_counter_is_the_difference_of_its_fresh_values(self) -> None:
        summary = over(scraped(cadence=1, every=1, until=10), 0, 10)[ENERGY]
        # From the first refresh seen inside, at 1 s.
        assert (summary.delta, summary.delta_s) == (900.0, 9.0)

    def test_one_refresh_gives_no_difference(self) -> None:
        summary = over(scraped(cadence=30, every=1, until=40, phase=15), 0, 40)[ENERGY]
        assert (summary.fresh, summary.delta, summary.delta_s) == (1, 0.0, 0.0)

    def test_a_slice_with_a_reset_has_no_difference(self) -> None:
        steps = enumerate((1000.0, 1010.0, 1020.0, 5.0, 15.0))
        summary = over([dcgm(second, {ENERGY: joules}, second) for second, joules in steps], 0, 4)[ENERGY]
        assert (summary.delta, summary.delta_s, summary.falls) == (0.0, 0.0, 1)

    def test_a_reset_costs_its_own_slice_only(self) -> None:
        steps = enumerate((1000.0, 1010.0, 1020.0, 5.0, 15.0, 25.0))
        pages = [dcgm(second, {ENERGY: joules}, second) for second, joules in steps]
        summary = merge([over(pages, 0, 2), over(pages, 1, 4), over(pages, 3, 5)])[ENERGY]
        assert (summary.delta, summary.delta_s, summary.falls) == (20.0, 2.0, 1)

    def test_slices_add_up(self) -> None:
        pages = scraped(cadence=1, every=1, until=100)
        merged = merge([over(pages, 0, 10), over(pages, 50, 60)])
        assert (merged[ENERGY].delta, merged[ENERGY].delta_s) == (1800.0, 18.0)


class TestMerge:
    def test_the_largest_of_the_largest_and_the_sum_of_the_sums(self) -> None:
        merged = merge([{USED: Summary(5, 2, 3, 7, 10)}, {USED: Summary(4, 1, 1, 1, 1)}])
        assert merged == {USED: Summary(9, 3, 1, 7, 11)}

    def test_a_slice_without_a_refresh_adds_samples_only(self) -> None:
        fresh = Summary(5, 2, 3, 7, 10)
        for parts in ([fresh, Summary(4)], [Summary(4), fresh]):
            assert merge([{USED: part} for part in parts]) == {USED: replace(fresh, samples=9)}

    def test_nothing_merges_to_nothing(self) -> None:
        assert merge([]) == {}

    @given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1e6, 1e6)), max_size=6))
    def test_the_order_of_slices_does_not_matter(self, drawn: list[tuple[int, float]]) -> None:
        parts = [
            {USED: Summary(9, fresh, value, value, value * fresh) if fresh else Summary(9)} for fresh, value in drawn
        ]
        one, other = merge(parts), merge(reversed(parts))
        for series, summary in one.items():
            assert summary == replace(other[series], total=pytest.approx(other[series].total))


class TestCadence:
    @pytest.mark.parametrize(("cadence", "every", "shown"), [(30, 1, 30), (1, 0.25, 1), (0.1, 1, 1), (5, 2, 5)])
    def test_is_inferred_from_changes(self, cadence: float, every: float, shown: float) -> None:
        assert cadence_s(scraped(cadence, every, 120), "dcgm") == pytest.approx(shown, abs=every)

    def test_is_unknown_before_the_second_refresh(self) -> None:
        assert cadence_s(scraped(cadence=30, every=1, until=20, phase=15), "dcgm") is None

    def test_of_a_live_source_is_none(self) -> None:
        assert cadence_s([Page("host", "here", second * S, {LEFT: 1.0}) for second in range(9)], "host") is None

    def test_of_several_exporters_is_that_of_the_slowest(self) -> None:
        quick, slow = scraped(cadence=1, every=1, until=100), scraped(cadence=20, every=1, until=100)
        pages = [*quick, *(replace(page, origin="two") for page in slow)]
        assert cadences(pages) == {"dcgm": pytest.approx(20)}

    def test_of_another_source_is_none(self) -> None:
        assert cadence_s(scraped(cadence=1, every=1, until=10), "triton") is None


def triton(values: Mapping[str, float], problem: str | None = None) -> Page:
    return Page("triton", "t", 0, {Series(name, "m"): value for name, value in values.items()}, problem=problem)


class TestCounterDeltas:
    def test_a_model_that_was_not_there_before_counts_from_zero(self) -> None:
        after = triton({"nv_inference_count": 5})
        assert counter_deltas(triton({}), after, "m") == ({"nv_inference_count": 5}, None)

    def test_another_model_says_nothing(self) -> None:
        page = triton({"nv_inference_count": 5})
        assert counter_deltas(page, page, "other") == (None, "the server's metrics page has no counters of other")

    def test_a_scrape_that_failed_gives_its_reason(self) -> None:
        bad = triton({}, "connection refused")
        good = triton({"nv_inference_count": 5})
        assert counter_deltas(bad, good, "m") == (None, "connection refused")
        assert counter_deltas(good, bad, "m") == (None, "connection refused")

    def test_a_counter_that_falls_is_a_restart(self) -> None:
        deltas, why = counter_deltas(triton({"nv_inference_count": 5}), triton({"nv_inference_count": 4}), "m")
        assert deltas is None
        assert why is not None
        assert "restarted" in why

    def test_the_queue_may_get_shorter(self) -> None:
        name = "nv_inference_pending_request_count"
        assert counter_deltas(triton({name: 5}), triton({name: 4}), "m") == ({name: -1}, None)


@given(
    st.dictionaries(
        st.builds(Series, st.text(max_size=9), st.text(max_size=9)),
        st.builds(
            Summary,
            st.integers(0, 9),
            st.integers(0, 9),
            *[st.floats(allow_nan=False, allow_infinity=False)] * 5,
            st.integers(0, 9),
        ),
    )
)
def test_summaries_survive_json(summaries: dict[Series, Summary]) -> None:
    assert summaries_from_json(json.loads(json.dumps(summaries_to_json(summaries)))) == summaries
