"""Every figure of a row from slices made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_analyzer.core.histogram import Histogram
from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.measurement import Measurement, Slice
from model_analyzer.core.metric import gpu_metrics, host_metrics
from model_analyzer.core.plan import Phase
from model_analyzer.core.reduce import failed, gpu_refreshes, reduce_phase, skipped
from model_analyzer.core.stats import Interval, SliceStats
from model_analyzer.core.steal import CpuTime
from model_analyzer.core.stopping import Verdict
from model_analyzer.core.telemetry import Series, Summaries, Summary
from model_analyzer.core.variant import Variant

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000
PHASE = Phase("id", Variant("m", "m_config_default"), 8, Load("concurrency", 2), InputSource(), "http")
STABLE = Verdict(True, True, (), Interval(100.0, 4.0), Interval(9e6, 5e5))
UNSTABLE = Verdict(True, False, ("throughput is known to ±17% only (asked: 5%)",), Interval(100.0, 17.0), None)
NO_METRICS = "the metrics page did not answer"


def stats(latency_ms: Mapping[float, int], seconds: float = 1.0) -> SliceStats:
    """latency in ms -> how many replies took so long."""
    values = [np.full(count, round(ms * MS_NS), np.int64) for ms, count in latency_ms.items()]
    length = round(seconds * SECOND_NS)
    latency = Histogram.of(np.concatenate(values) if values else np.empty(0, np.int64))
    return SliceStats(length, length, (latency.count,), latency)


def counters(success: float, **others: float) -> dict[str, float]:
    """Deltas of Triton's counters; batches of 8."""
    return {
        "nv_inference_request_success": success,
        "nv_inference_request_failure": 0.0,
        "nv_inference_count": success * 8,
        "nv_inference_exec_count": success,
        **others,
    }


def piece(latency_ms: Mapping[float, int] | None = None, seconds: float = 1.0, **changes: Any) -> Slice:
    """A slice of 100 replies of 10 ms that the server counted as well."""
    measured = stats({10.0: 100} if latency_ms is None else latency_ms, seconds)
    return Slice(
        **{
            "phase_id": "id",
            "round": 0,
            "started_at": "2026-01-01T10:00:00.000+00:00",
            "warmup_s": 0.2,
            "stats": measured,
            "failures": {},
            "server": counters(measured.count),
            "server_problem": None,
            "client_cpu_ratio": 0.1,
            "client_lag_s": 0.0,
            "gpus": (),
            "telemetry": {},
            "cadences": {},
            "problems": {},
            **changes,
        }
    )


def row(*slices: Slice, verdict: Verdict = STABLE, inferences: int = 8, phase: Phase = PHASE) -> Measurement:
    return reduce_phase(phase, slices, verdict, inferences)


def gauge(value: float, fresh: int = 1) -> Summary:
    """One value, however often it was refreshed."""
    return Summary(fresh, fresh, value, value, value * fresh) if fresh else Summary(1)


def on_gpu(key: str = "GPU-a", **values: Summary) -> dict[Series, Summary]:
    return {Series(name, key): summary for name, summary in values.items()}


def on_host(name: str, value: float) -> dict[Series, Summary]:
    return {Series(name, ""): gauge(value)}


def gpu_slice(telemetry: Summaries, gpus: tuple[str, ...] = ("GPU-a",), **changes: Any) -> Slice:
    return piece(gpus=gpus, telemetry=telemetry, **changes)


class TestThroughput:
    def test_counts_inferences_over_all_slices(self) -> None:
        measured = row(piece({10.0: 100}, 1.0), piece({10.0: 200}, 3.0))
        assert measured.values["perf_throughput"] == 300 * 8 / 4
        assert measured.values["measured_seconds"] == 4
        assert measured.values["requests_succeeded"] == 300

    def test_its_interval_is_in_inferences_too(self) -> None:
        assert row(piece()).values["perf_throughput_ci"] == 4.0 * 8

    def test_no_interval_has_a_reason(self) -> None:
        measured = row(piece(), verdict=Verdict(True, False, (), None, None))
        assert measured.reasons["perf_throughput_ci"] == "too few for an interval: 1 slice with 100 replies"
        assert measured.reasons["perf_latency_p99_ci"] == "no interval: 100 replies, 299 are needed"


class TestLatency:
    def test_average_percentiles_and_maximum_over_all_slices(self) -> None:
        measured = row(piece({1.0: 100}), piece({1.0: 94, 2.0: 4, 50.0: 2}))
        values = measured.values
        assert values["perf_latency_avg"] == pytest.approx((194 * 1 + 4 * 2 + 2 * 50) / 200 * MS_NS)
        assert values["perf_latency_p50"] == pytest.approx(1 * MS_NS, rel=0.004)
        assert values["perf_latency_p99"] == pytest.approx(2 * MS_NS, rel=0.004), "number 198 of 200"
        assert values["perf_latency_max"] == 50 * MS_NS
        assert values["perf_latency_p99_ci"] == 5e5

    def test_the_older_name_of_p99_is_the_same_figure(self) -> None:
        measured = row(piece())
        assert measured.values["perf_latency"] == measured.values["perf_latency_p99"]

    def test_percentiles_with_no_reply_beyond_them_are_the_largest_and_the_row_says_so(self) -> None:
        measured = row(piece({10.0: 14, 20.0: 1}))
        assert measured.values["perf_latency_p90"] == pytest.approx(10 * MS_NS, rel=0.004)
        assert measured.values["perf_latency_p99"] == measured.values["perf_latency"] == 20 * MS_NS
        assert "p95, p99 of 15 replies: the largest of them" in measured.notes


class TestStatus:
    def test_a_rule_that_was_met_is_ok_without_notes(self) -> None:
        assert (row(piece()).status, row(piece()).notes) == ("ok", ())

    def test_a_rule_that_was_not_met_is_unstable_and_says_why(self) -> None:
        measured = row(piece(), verdict=UNSTABLE)
        assert (measured.status, measured.notes) == ("unstable", UNSTABLE.reasons)

    @pytest.mark.parametrize(
        ("gap_s", "verdict", "told"), [(8, STABLE, True), (30, STABLE, False), (8, UNSTABLE, False)]
    )
    def test_an_ok_row_that_saw_a_few_seconds_only_says_so(self, gap_s: int, verdict: Verdict, told: bool) -> None:
        slices = [piece(stats=replace(stats({10.0: 100}), start_ns=n * gap_s * SECOND_NS)) for n in range(2)]
        notes = row(*slices, verdict=verdict).notes
        assert any(note.startswith("measured within 9 s: the intervals hold no slower moves") for note in notes) is told

    def test_no_reply_is_a_failure_and_says_so(self) -> None:
        measured = row(piece({}, failures={"HTTP 500: boom": 7}), piece({}, 1.5), verdict=UNSTABLE)
        assert measured.status == "failed"
        assert "no reply in 2.5 measured seconds" in measured.notes
        assert measured.values["perf_throughput"] == 0
        assert measured.values["requests_failed"] == 7

    def test_a_row_of_a_model_slower_than_its_slices_says_what_to_do(self) -> None:
        measured = row(piece({}, 0.4), verdict=UNSTABLE)
        assert measured.status == "failed"
        assert "no reply in 0.4 measured seconds: a request takes longer; raise max_seconds" in measured.notes

    def test_skipped_and_failed_phases_carry_their_reason(self) -> None:
        assert (skipped(PHASE, "too big").status, skipped(PHASE, "too big").notes) == ("skipped", ("too big",))
        assert (failed(PHASE, "died").status, failed(PHASE, "died").values) == ("failed", {})

    def test_failures_of_all_slices_add_up(self) -> None:
        measured = row(piece(failures={"a": 2, "b": 1}), piece(failures={"a": 4}))
        assert measured.values["requests_failed"] == 7

    def test_a_run_taken_up_the_next_day_is_told_of(self) -> None:
        measured = row(
            piece(started_at="2026-01-01T10:00:00.000+00:00"),
            piece(started_at="2026-01-01T10:20:00.000+00:00"),
            piece(started_at="2026-01-02T09:30:00.000+00:00"),
        )
        (note,) = measured.notes
        assert note.startswith("measured in 2 sittings, from 2026-01-01 10:00, 2026-01-02 09:30 on")

    def test_the_same_note_of_many_slices_stands_once(self) -> None:
        assert row(piece(notes=("guess",)), piece(notes=("guess",))).notes == ("guess",)


class TestServerFigures:
    def test_times_are_deltas_over_successes_in_ns(self) -> None:
        times = {
            "nv_inference_queue_duration_us": 2000.0,
            "nv_inference_compute_input_duration_us": 400.0,
            "nv_inference_compute_infer_duration_us": 80_000.0,
            "nv_inference_compute_output_duration_us": 100.0,
        }
        values = row(piece(server=counters(100, **times)), piece(server=counters(100))).values
        # 200 successes: 10, 2, 400 and 0.5 us a request.
        assert [
            values[f"perf_server_{part}"] for part in ("queue", "compute_input", "compute_infer", "compute_output")
        ] == [
            10_000,
            2_000,
            400_000,
            500,
        ]

    def test_average_batch_and_requests(self) -> None:
        server = counters(100, nv_inference_exec_count=50.0, nv_inference_request_failure=3.0)
        values = row(piece(server=server)).values
        assert values["server_average_batch"] == 16
        assert (values["server_requests_succeeded"], values["server_requests_failed"]) == (100, 3)

    def test_cache_hits(self) -> None:
        server = counters(100, nv_cache_num_hits_per_model=75.0, nv_cache_num_misses_per_model=25.0)
        assert row(piece(server=server)).values["cache_hit_ratio"] == 0.75
        without = row(piece())
        assert without.values["cache_hit_ratio"] is None
        assert without.reasons["cache_hit_ratio"] == "the response cache is off for this model"

    def test_slices_whose_counters_could_not_be_read_are_left_out(self) -> None:
        unread = piece(server=None, server_problem=NO_METRICS)
        assert row(piece(), unread, unread).values["server_requests_succeeded"] == 100

    def test_no_counters_at_all_has_the_reason(self) -> None:
        measured = row(piece(server=None, server_problem=NO_METRICS))
        assert measured.values["perf_server_queue"] is None
        assert measured.reasons["perf_server_queue"] == f"triton: {NO_METRICS}"

    def test_a_page_without_the_counter_is_not_a_count_of_nothing(self) -> None:
        measured = row(piece(server={"nv_inference_count": 800.0}))
        assert measured.values["server_requests_succeeded"] is None
        assert "has no nv_inference_request_success" in measured.reasons["server_requests_succeeded"]
        assert measured.notes == ()


def test_a_row_says_what_its_failed_requests_were_the_commonest_first() -> None:
    first, second = {"timeout": 1, "HTTP 503": 2, "a": 1}, {"HTTP 503": 3, "b": 1, "c": 2}
    notes = row(piece(failures=first), piece(failures=second)).notes
    assert notes[0] == "10 requests failed: 5x HTTP 503; 2x c; 1x timeout; 2x others"
    assert row(piece(failures={"timeout": 1})).notes[0] == "1 request failed: timeout"


def test_a_row_says_how_many_requests_never_had_a_reply() -> None:
    (note,) = row(piece(unanswered=1), piece(), piece(unanswered=2)).notes
    assert note.startswith(
        "3 requests had no reply when a slice's end was waited for no longer, and count for nothing: "
    )


class TestCrossCheck:
    @pytest.mark.parametrize(("server", "agree"), [(100, True), (105, True), (95, True), (106, False), (94, False)])
    def test_may_differ_by_what_was_in_flight_at_both_ends_and_one_percent(self, server: float, agree: bool) -> None:
        # 100 replies, 2 in flight, 1 %: 5 apart are allowed.
        assert (row(piece(server=counters(server))).notes == ()) is agree

    def test_what_was_in_flight_counts_for_every_slice(self) -> None:
        assert row(*[piece(server=counters(97))] * 4).notes == ()
        (note,) = row(*[piece(server=counters(104))] * 4).notes
        assert note == "client counted 400 replies, the server 416: other clients?"

    @pytest.mark.parametrize(("scrapes_s", "agree"), [(0.01, False), (0.1, True)])
    def test_counters_of_a_slow_scrape_are_of_another_moment(self, scrapes_s: float, agree: bool) -> None:
        # 100 replies a second: ten of them in 0.1 s.
        assert (row(piece(server=counters(88), scrapes_s=scrapes_s)).notes == ()) is agree

    def test_of_an_open_loop_in_flight_is_what_its_rate_and_latency_make_it(self) -> None:
        phase = replace(PHASE, load=Load("request_rate", 100.0))
        assert row(piece({10.0: 100}, server=counters(68)), phase=phase).notes == (), "16 at each end"
        assert row(piece({10.0: 100}, server=counters(60)), phase=phase).notes
        # 400 ms at 100 a second: 40.
        assert row(piece({400.0: 100}, server=counters(20)), phase=phase).notes == ()

    def test_failures_that_the_server_counts_as_successes_are_no_other_client(self) -> None:
        failed_so = "50 requests failed: HTTP 500: no"
        assert row(piece(server=counters(150), failures={"HTTP 500: no": 50})).notes == (failed_so,)
        (_, note) = row(piece(server=counters(170), failures={"HTTP 500: no": 50})).notes
        assert note == "client counted 100 replies, the server 170: other clients?"

    def test_fewer_at_the_server_points_elsewhere(self) -> None:
        (note,) = row(piece(server=counters(10))).notes
        assert note == "client counted 100 replies, the server 10: replies from elsewhere, such as a cache or a proxy?"

    def test_slices_without_counters_are_not_compared(self) -> None:
        assert row(piece(), piece(server=None, server_problem=NO_METRICS)).notes == ()


class TestClientLimit:
    def test_a_row_says_whether_the_load_generator_was_the_limit_and_why(self) -> None:
        measured = row(piece(client_cpu_ratio=0.9))
        assert measured.client_limited is True
        assert measured.notes[0].startswith("the load generator used 90% of a core: its own work was the limit")
        assert row(piece()).client_limited is False

    @pytest.mark.parametrize(("of_host", "shared"), [(0.97, True), (0.5, False)])
    def test_a_server_on_the_same_full_cpus_is_told_of(self, of_host: float, shared: bool) -> None:
        telemetry = {**on_host("server processes", 1.0), **on_host("nv_cpu_utilization", of_host)}
        (note, *_) = row(piece(client_cpu_ratio=0.9, telemetry=telemetry)).notes
        assert ("it and the server share full CPUs" in note) == shared

    @pytest.mark.parametrize(
        ("wanted", "stolen", "others"),
        [(2.9, 0.0, "1.0"), (2.9, 0.5, "0.5"), (2.1, 0.0, None), (1.0, 0.0, None)],
        ids=["neighbour", "less than was stolen", "the machine's own", "rounding"],
    )
    def test_a_neighbour_on_full_cpus_that_server_and_load_generator_share_is_told_apart(
        self, wanted: float, stolen: float, others: str | None
    ) -> None:
        # Of two seconds the server used 2 and the load generator 1.8 CPU seconds.
        telemetry = {**on_host("server processes", 1.0), **on_host("nv_cpu_utilization", 0.97)}
        cpu = CpuTime(int(2 * wanted * SECOND_NS), int(2 * stolen * SECOND_NS))
        (note, *_) = row(piece({10.0: 200}, 2.0, client_cpu_ratio=0.9, telemetry=telemetry, cpu_time=cpu)).notes
        assert ("it and the server share full CPUs" in note) == (others is None)
        if others is not None:
            assert f": other programs used {others} cores of the full CPUs" in note

    @pytest.mark.parametrize(("of_host", "told"), [(0.97, True), (0.8, True), (0.6, False)])
    def test_a_neighbour_is_told_of_where_only_the_server_lacks_its_cpus(self, of_host: float, told: bool) -> None:
        telemetry = {**on_host("server processes", 0.9), **on_host("nv_cpu_utilization", of_host)}
        measured = row(piece(client_cpu_ratio=0.1, telemetry=telemetry, cpu_time=CpuTime(2 * SECOND_NS, 0)))
        note = "other programs used 1.0 cores of this machine, which server and load generator lacked; measure again once they are quiet"
        assert measured.notes == ((note,) if told else ())
        assert measured.client_limited is False

    def test_who_used_the_cpus_is_not_guessed_where_the_kernel_does_not_tell(self) -> None:
        telemetry = {**on_host("server processes", 0.1), **on_host("nv_cpu_utilization", 0.97)}
        (note, *_) = row(piece(client_cpu_ratio=0.9, telemetry=telemetry, cpu_time=None)).notes
        assert "other programs" not in note

    def test_full_cpus_of_a_server_elsewhere_are_not_ours(self) -> None:
        (note, *_) = row(piece(client_cpu_ratio=0.9, telemetry=on_host("nv_cpu_utilization", 1.0))).notes
        assert "share" not in note

    def test_its_cpu_is_weighed_by_time(self) -> None:
        measured = row(piece(client_cpu_ratio=1.0), piece({10.0: 300}, 3.0, client_cpu_ratio=0.2))
        assert measured.values["client_cpu"] == pytest.approx(0.4)
        assert measured.client_limited is False


def test_cpu_time_that_a_hypervisor_took_is_a_note_and_no_status() -> None:
    measured = row(piece(cpu_time=CpuTime(2 * SECOND_NS, 0)), piece(cpu_time=CpuTime(2 * SECOND_NS, SECOND_NS // 5)))
    assert measured.status == "ok"
    assert measured.client_limited is False
    (note,) = measured.notes
    assert note.startswith("the hypervisor took 5% of the CPU time")


class TestMemoryOfTheFirstRound:
    def test_a_later_larger_figure_does_not_count(self) -> None:
        first, later = on_gpu(DCGM_FI_DEV_FB_USED=gauge(2e9)), on_gpu(DCGM_FI_DEV_FB_USED=gauge(5e9))
        measured = row(gpu_slice(first), gpu_slice(later))
        assert measured.values["gpu_used_memory"] == measured.values["gpu_used_memory_max"] == 2e9

    def test_the_hosts_memory_too(self) -> None:
        name = "nv_cpu_memory_used_bytes"
        measured = row(piece(telemetry=on_host(name, 1e9)), piece(telemetry=on_host(name, 3e9)))
        assert measured.host["cpu_used_ram"].value == 1e9

    def test_other_figures_are_of_all_rounds(self) -> None:
        first, later = on_gpu(DCGM_FI_DEV_GPU_UTIL=gauge(0.2)), on_gpu(DCGM_FI_DEV_GPU_UTIL=gauge(0.8))
        values = row(gpu_slice(first), gpu_slice(later)).values
        assert values["gpu_utilization"] == pytest.approx(0.5)
        assert values["gpu_utilization_max"] == 0.8

    def test_no_refresh_in_the_first_round_is_made_up_for_and_told(self) -> None:
        stale, fresh = on_gpu(DCGM_FI_DEV_FB_USED=gauge(0, 0)), on_gpu(DCGM_FI_DEV_FB_USED=gauge(5e9))
        measured = row(gpu_slice(stale), gpu_slice(fresh))
        assert measured.values["gpu_used_memory"] == 5e9
        assert any("no refresh in the first round" in note for note in measured.notes)


class TestSeveralGpus:
    def test_each_has_its_readings_and_the_row_their_reduction(self) -> None:
        telemetry = {
            **on_gpu("GPU-a", DCGM_FI_DEV_GPU_UTIL=gauge(0.9), DCGM_FI_DEV_FB_USED=gauge(4e9)),
            **on_gpu("GPU-b", DCGM_FI_DEV_GPU_UTIL=gauge(0.1), DCGM_FI_DEV_FB_USED=gauge(1e9)),
        }
        measured = row(gpu_slice(telemetry, ("GPU-a", "GPU-b")))
        assert measured.gpus["GPU-a"]["gpu_utilization"].value == 0.9
        assert measured.gpus["GPU-b"]["gpu_used_memory"].value == 1e9
        assert measured.values["gpu_utilization"] == pytest.approx(0.5)
        assert measured.values["gpu_utilization_max"] == 0.9
        assert measured.values["gpu_used_memory_max"] == 4e9

    def test_refreshes_are_those_of_the_slowest(self) -> None:
        telemetry = {
            **on_gpu("GPU-a", DCGM_FI_DEV_GPU_UTIL=gauge(0.9, 5)),
            **on_gpu("GPU-b", DCGM_FI_DEV_GPU_UTIL=gauge(0.1, 2)),
        }
        assert gpu_refreshes([gpu_slice(telemetry, ("GPU-a", "GPU-b"))]) == 2
        assert gpu_refreshes([piece()]) is None


class TestEnergy:
    def test_by_the_counter_scaled_to_the_measured_time(self) -> None:
        # 50 J in the 0.5 s between two refreshes: 100 J in the second measured, over 100 requests of 8.
        counter = Summary(2, 2, 1.0, 1.0, 2.0, delta=50.0, delta_s=0.5)
        measured = row(gpu_slice(on_gpu(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION=counter)))
        assert measured.values["gpu_energy"] == pytest.approx(100)
        assert measured.values["energy_per_inference"] == pytest.approx(100 / 800)
        assert measured.notes == ()

    def test_by_power_where_no_counter_is_and_then_it_says_so(self) -> None:
        measured = row(gpu_slice(on_gpu(DCGM_FI_DEV_POWER_USAGE=gauge(250.0))))
        assert measured.values["energy_per_inference"] == pytest.approx(250 / 800)
        assert measured.notes == ("energy is average power x time",)

    def test_of_several_gpus_adds_up_whatever_each_is_known_by(self) -> None:
        counter = Summary(2, 2, 1.0, 1.0, 2.0, delta=50.0, delta_s=0.5)
        telemetry = {
            **on_gpu("GPU-a", DCGM_FI_DEV_POWER_USAGE=gauge(200.0)),
            **on_gpu("GPU-b", DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION=counter),
        }
        measured = row(gpu_slice(telemetry, ("GPU-a", "GPU-b")))
        assert measured.values["energy_per_inference"] == pytest.approx(300 / 800)

    def test_without_either_there_is_a_reason(self) -> None:
        measured = row(gpu_slice(on_gpu(DCGM_FI_DEV_GPU_UTIL=gauge(0.5))))
        assert measured.values["energy_per_inference"] is None
        assert "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" in measured.reasons["energy_per_inference"]

    def test_without_an_inference_there_is_none(self) -> None:
        measured = row(gpu_slice(on_gpu(DCGM_FI_DEV_POWER_USAGE=gauge(250.0)), latency_ms={}))
        assert measured.values["energy_per_inference"] is None
        assert measured.reasons["energy_per_inference"] == "no inference"


class TestReasons:
    def test_no_gpu(self) -> None:
        measured = row(piece())
        assert measured.reasons["gpu_used_memory"] == "no GPU: Triton reports none, and no DCGM exporter does"

    def test_no_gpu_because_a_source_failed(self) -> None:
        measured = row(piece(problems={"dcgm": "http://node:9400/metrics: connection refused"}))
        assert "connection refused" in measured.reasons["gpu_used_memory"]

    def test_a_source_that_did_not_refresh(self) -> None:
        stale = gpu_slice(on_gpu(DCGM_FI_DEV_GPU_UTIL=gauge(0, 0)), cadences={"dcgm": 30.0})
        reason = row(stale).reasons["gpu_utilization"]
        assert reason == "stale: dcgm did not refresh within the measured 1.0 s (it does every 30.0 s)"

    @pytest.mark.parametrize(
        "slices",
        [
            [piece()],
            [piece({})],
            [piece({}, 0.0)],
            [piece({10.0: 3}, server=None, server_problem=NO_METRICS)],
            [piece(server={})],
            [piece(server=counters(0.0))],
            [gpu_slice({})],
            [gpu_slice(on_gpu(DCGM_FI_DEV_GPU_UTIL=gauge(0, 0)))],
            [gpu_slice(on_gpu(DCGM_FI_DEV_FB_USED=gauge(1e9)), ("GPU-a", "GPU-b"))],
            [piece(problems={"triton": "timed out", "dcgm": "404"})],
        ],
    )
    @pytest.mark.parametrize("verdict", [STABLE, UNSTABLE, Verdict(True, False, (), None, None)])
    def test_every_absent_figure_has_one(self, slices: list[Slice], verdict: Verdict) -> None:
        measured = row(*slices, verdict=verdict)
        absent = {tag for tag, value in measured.values.items() if value is None}
        assert absent <= {tag for tag, reason in measured.reasons.items() if reason}
        assert {tag for tag in measured.reasons if measured.values[tag] is not None} == set()
        for readings in (measured.host, *measured.gpus.values()):
            assert all(reading.reason for reading in readings.values() if reading.value is None)

    def test_every_metric_of_gpu_and_host_scope_is_there(self) -> None:
        measured = row(gpu_slice({}))
        assert {metric.tag for metric in gpu_metrics()} <= set(measured.gpus["GPU-a"])
        assert {metric.tag for metric in host_metrics()} == set(measured.host)


def test_a_stored_slice_reduces_to_the_same_row() -> None:
    slices = [
        gpu_slice(
            {**on_gpu(DCGM_FI_DEV_POWER_USAGE=gauge(250.0)), **on_host("nv_cpu_utilization", 0.5)},
            failures={"HTTP 503": 2},
            notes=("a note",),
            cadences={"dcgm": 1.0},
        ),
        piece(problems={"triton": "timed out"}),
    ]
    assert row(*(Slice.from_json(one.to_json()) for one in slices)) == row(*slices)
