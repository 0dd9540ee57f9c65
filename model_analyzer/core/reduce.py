"""A phase's row from its slices: pure, so that it can be made again from the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, pairwise

from model_analyzer.core import open_loop
from model_analyzer.core.client_limit import HOST_BUSY, HOST_FULL, client_limit
from model_analyzer.core.energy import energy_per_inference
from model_analyzer.core.histogram import Histogram, least_count
from model_analyzer.core.load import Load
from model_analyzer.core.measurement import Measurement, Slice, Status
from model_analyzer.core.metric import METRICS, Metric, gpu_metrics, host_metrics
from model_analyzer.core.plan import Phase
from model_analyzer.core.reading import across, disagreement, read_metric, source_of
from model_analyzer.core.remarks import remarks, still_filling
from model_analyzer.core.repeats import by_repeat, compared, differences, percentile_spread, throughput_spread
from model_analyzer.core.stats import SliceStats, rate_of, span_s
from model_analyzer.core.steal import steal_notes
from model_analyzer.core.stopping import Verdict, why_no_p99
from model_analyzer.core.stream_intervals import compared_streams, stream_intervals
from model_analyzer.core.streams import stream_values
from model_analyzer.core.telemetry import Reading, Summaries, merge, preferred
from model_analyzer.core.wording import counted

QUANTILES = {"perf_latency_p50": 0.50, "perf_latency_p90": 0.90, "perf_latency_p95": 0.95, "perf_latency_p99": 0.99}
SERVER_TIMES = {
    "perf_server_queue": "nv_inference_queue_duration_us",
    "perf_server_compute_input": "nv_inference_compute_input_duration_us",
    "perf_server_compute_infer": "nv_inference_compute_infer_duration_us",
    "perf_server_compute_output": "nv_inference_compute_output_duration_us",
}

# A round of a large group may take minutes; slices further apart than this come from a run that was taken up again.
SITTING = timedelta(hours=1)

# So many messages of failed requests stand in a row's notes.
FAILURES_TOLD = 3

# Of an open loop, at the ends of a slice: bursts have more in flight than the mean.
LEAST_IN_FLIGHT = 16.0

# Rows measured within less are told to be short-sighted: levels of a machine hold for seconds.
SIGHT_S = 20.0

Values = dict[str, float | None]
Reasons = dict[str, str]


def skipped(phase: Phase, reason: str) -> Measurement:
    """A phase that is not measured, and why."""
    return Measurement(phase, "skipped", (reason,))


def failed(phase: Phase, reason: str) -> Measurement:
    """A phase that brought no figures, and why."""
    return Measurement(phase, "failed", (reason,))


def reduce_phase(phase: Phase, slices: Sequence[Slice], verdict: Verdict, inferences: int) -> Measurement:
    """The row of a phase. slices: at least one, oldest first, of whole repeats. inferences: carried by one request."""
    seconds = sum(piece.seconds for piece in slices)
    repeats = by_repeat(slices)
    slices = [piece for each in repeats for piece in each]
    stats = [[piece.stats for piece in each] for each in repeats]
    client, reasons = _client_values(slices, verdict, inferences, seconds)
    spread, spread_reasons = _spread_values(stats)
    streamed, stream_reasons = stream_intervals(stats)
    server, server_reasons, server_notes = _server_values(phase, slices)
    telemetry = [piece.telemetry for piece in slices]
    gpu_keys = sorted({key for piece in slices for key in piece.gpus})
    problems = {source: text for piece in slices for source, text in piece.problems.items()}
    cadences = {source: seconds for piece in slices for source, seconds in piece.cadences.items()}
    host, gpus = read_telemetry(telemetry, seconds, gpu_keys, problems, cadences)
    gpu_values, gpu_reasons, gpu_notes = _gpu_values(gpus, problems, slices, telemetry, seconds, inferences)
    opened, opened_reasons = open_loop.values(phase.load, slices)
    limited, limit_notes = client_limit(slices, _shared_and_full(host), _others_cores(slices, host))
    if seconds and not client["requests_succeeded"]:
        slower = "" if client["requests_failed"] else ": a request takes longer; raise max_seconds"
        limit_notes = (f"no reply in {seconds:.1f} measured seconds{slower}", *limit_notes)
    return Measurement(
        phase,
        _status(phase.load, slices, verdict),
        _distinct(
            [
                *open_loop.overload(phase.load, slices),
                *verdict.reasons,
                *_failure_notes(slices),
                *limit_notes,
                *steal_notes((piece.cpu_time, piece.seconds) for piece in slices),
                *open_loop.notes(phase.load, slices),
                *_still_filling(phase.load, slices),
                *_few_replies(sum(piece.stats.count for piece in slices)),
                *differences(chain(compared(stats), compared_streams(stats)), len(stats)),
                *_remarks(stats),
                *_short_sight([piece.stats for piece in slices], verdict),
                *_sittings(slices),
                *server_notes,
                *gpu_notes,
                *problem_notes(problems),
                *(note for piece in slices for note in piece.notes),
            ]
        ),
        {**client, **opened, **spread, **streamed, **server, **gpu_values},
        {**reasons, **opened_reasons, **spread_reasons, **stream_reasons, **server_reasons, **gpu_reasons},
        host,
        gpus,
        limited,
        repeats=len(repeats),
    )


def _shared_and_full(host: Mapping[str, Reading]) -> bool:
    """Whether the server runs on this machine, as its processes are seen, and the machine's CPUs are all at work."""
    of_server, of_host = host["server_cpu"].value, host["cpu_utilization"].value
    return of_server is not None and of_host is not None and of_host >= HOST_FULL


def _others_cores(slices: Sequence[Slice], host: Mapping[str, Reading]) -> float:
    """Cores that neither the server, where it runs on this machine, nor the load generator used.

    0 where that is not known, and where so many CPUs are idle that nobody lacked them.
    """
    known = [(piece, piece.cpu_time) for piece in slices if piece.cpu_time is not None]
    seconds = sum(piece.seconds for piece, _ in known)
    of_server, of_host = host["server_cpu"].value, host["cpu_utilization"].value
    if not seconds or of_server is None or of_host is None or of_host < HOST_BUSY:
        return 0.0
    used = sum((cpu.wanted_ns - cpu.stolen_ns) / 1e9 - piece.client_cpu_ratio * piece.seconds for piece, cpu in known)
    return used / seconds - of_server


def _remarks(repeats: Sequence[Sequence[SliceStats]]) -> list[str]:
    """Of each repeat by itself: what lies between two of them is no drift and no move."""
    if len(repeats) == 1:
        return list(remarks(repeats[0]))
    said: dict[str, list[int]] = {}
    for number, slices in enumerate(repeats, start=1):
        for remark in remarks(slices):
            said.setdefault(remark, []).append(number)
    return [f"repeat {', '.join(map(str, of))}: {remark}" for remark, of in said.items()]


def _still_filling(load: Load, slices: Sequence[Slice]) -> tuple[str, ...]:
    """Not told where requests failed: a place that waits before it tries again is not in flight."""
    if load.kind != "concurrency" or any(piece.failures for piece in slices):
        return ()
    return still_filling(int(load.value), [piece.stats for piece in slices])


def _spread_values(repeats: Sequence[Sequence[SliceStats]]) -> tuple[Values, Reasons]:
    """How many repeats, and how far they lie apart."""
    throughput, p99 = throughput_spread(repeats), percentile_spread(repeats, 0.99)
    values: Values = {
        "repeats": float(len(repeats)),
        "perf_throughput_repeats_cv": throughput.cv if throughput else None,
        "perf_latency_p99_repeats_cv": p99.cv if p99 else None,
    }
    why = "one repeat" if len(repeats) == 1 else "a repeat had no reply"
    return values, {tag: why for tag, value in values.items() if value is None}


def _short_sight(slices: Sequence[SliceStats], verdict: Verdict) -> list[str]:
    """A note where a row passes for stable, and all of it was measured within so few seconds that it may be a calm."""
    seconds = span_s(slices)
    if not verdict.stable or verdict.throughput is None or seconds is None or seconds >= SIGHT_S:
        return []
    return [f"measured within {seconds:.0f} s: the intervals hold no slower moves of the machine"]


def _sittings(slices: Sequence[Slice]) -> list[str]:
    """A note where an interrupted run was taken up so much later that the machine may not be the same."""
    starts = [datetime.fromisoformat(piece.started_at) for piece in slices]
    later = [after for before, after in pairwise(starts) if after - before > SITTING]
    if not later:
        return []
    days = ", ".join(f"{start:%Y-%m-%d %H:%M}" for start in (starts[0], *later))
    return [f"measured in {len(later) + 1} sittings, from {days} on: the interval holds what changed in between"]


def _status(load: Load, slices: Sequence[Slice], verdict: Verdict) -> Status:
    if not any(piece.stats.count for piece in slices):
        return "failed"
    # Of a queue that grows as long as the load lasts the latencies depend on when one looks, however well they agree.
    return "ok" if verdict.stable and not open_loop.is_behind(load, slices) else "unstable"


def _client_values(
    slices: Sequence[Slice], verdict: Verdict, inferences: int, seconds: float
) -> tuple[Values, Reasons]:
    latency = Histogram.merge(piece.stats.latency for piece in slices)
    values: Values = {
        "perf_throughput": rate_of([piece.stats for piece in slices]) * inferences if seconds else None,
        "perf_throughput_ci": verdict.throughput.half_width * inferences if verdict.throughput else None,
        "perf_latency_avg": latency.mean_ns,
        **{tag: latency.percentile_ns(q) for tag, q in QUANTILES.items()},
        "perf_latency_max": None if latency.max_ns is None else float(latency.max_ns),
        "perf_latency_p99_ci": verdict.p99.half_width if verdict.p99 else None,
        "requests_succeeded": float(latency.count),
        "requests_failed": float(sum(sum(piece.failures.values()) for piece in slices)),
        "client_cpu": sum(piece.client_cpu_ratio * piece.seconds for piece in slices) / seconds if seconds else None,
        "measured_seconds": seconds,
    }
    values["perf_latency"] = values["perf_latency_p99"]
    streamed, stream_reasons = stream_values((piece.stats.stream for piece in slices), latency.count, seconds)
    values |= streamed
    reasons = dict.fromkeys(("perf_latency_avg", "perf_latency_max", "perf_latency", *QUANTILES), "no reply")
    reasons |= dict.fromkeys(("perf_throughput", "client_cpu"), "nothing was measured")
    reasons["perf_throughput_ci"] = (
        f"too few for an interval: {counted(len(slices), 'slice')} with {counted(latency.count, 'reply', 'replies')}"
    )
    reasons["perf_latency_p99_ci"] = f"no interval: {why_no_p99([piece.stats for piece in slices])}"
    absent = {tag: reason for tag, reason in reasons.items() if values[tag] is None}
    return values, absent | stream_reasons


def _few_replies(count: int) -> list[str]:
    """Which percentiles are no more than the maximum, because there is no reply beyond them."""
    names = [f"p{q * 100:.0f}" for q in QUANTILES.values() if count < least_count(q)]
    return [f"{', '.join(names)} of {count} replies: the largest of them"] if names and count else []


def _failure_notes(slices: Sequence[Slice]) -> Iterator[str]:
    """What failed and why, the commonest first; and what had neither a reply nor, yet, failed."""
    failures: Counter[str] = Counter()
    for piece in slices:
        failures.update(piece.failures)
    if failures:
        told = failures.most_common(FAILURES_TOLD)
        others = failures.total() - sum(count for _, count in told)
        texts = [f"{count}x {message}" for message, count in told] if len(failures) > 1 else [told[0][0]]
        yield "; ".join((f"{counted(failures.total(), 'request')} failed: {texts[0]}", *texts[1:], *_more(others)))
    unanswered = sum(piece.unanswered for piece in slices)
    if unanswered:
        yield (
            f"{counted(unanswered, 'request')} had no reply when a slice's end was waited for no longer, and count for nothing: lost by"
            " the server? see its log; a request_timeout_seconds below slice_seconds counts them as failed"
        )


def _more(others: int) -> list[str]:
    return [f"{others}x others"] if others else []


def _server_values(phase: Phase, slices: Sequence[Slice]) -> tuple[Values, Reasons, list[str]]:
    """Server-side figures from the slices whose counters could be read, and what does not add up."""
    read = [(piece, piece.server) for piece in slices if piece.server is not None]
    tags = (
        *SERVER_TIMES,
        "server_average_batch",
        "cache_hit_ratio",
        "server_requests_succeeded",
        "server_requests_failed",
    )
    if not read:
        reason = next((piece.server_problem for piece in slices if piece.server_problem), "no counters")
        return dict.fromkeys(tags), dict.fromkeys(tags, f"triton: {reason}"), []
    total: dict[str, float] = {}
    for _, counters in read:
        for name, delta in counters.items():
            total[name] = total.get(name, 0.0) + delta
    succeeded = total.get("nv_inference_request_success")
    values: Values = {tag: total[name] * 1000 / succeeded if succeeded and name in total else None
                      for tag, name in SERVER_TIMES.items()}  # fmt: skip
    executions = total.get("nv_inference_exec_count", 0.0)
    values["server_average_batch"] = total.get("nv_inference_count", 0.0) / executions if executions else None
    hits, misses = total.get("nv_cache_num_hits_per_model"), total.get("nv_cache_num_misses_per_model")
    values["cache_hit_ratio"] = (
        hits / (hits + misses) if hits is not None and misses is not None and hits + misses else None
    )
    values["server_requests_succeeded"] = succeeded
    values["server_requests_failed"] = total.get("nv_inference_request_failure")
    reasons = {tag: "the server counted no success" for tag in tags if values[tag] is None}
    if values["cache_hit_ratio"] is None:
        reasons["cache_hit_ratio"] = "the response cache is off for this model"
    for tag in ("server_requests_succeeded", "server_requests_failed"):
        if values[tag] is None:
            reasons[tag] = f"triton's metrics page has no {METRICS[tag].sources[0]}"
    return values, reasons, [] if succeeded is None else _cross_check(phase, read, succeeded)


def _cross_check(phase: Phase, read: Sequence[tuple[Slice, Mapping[str, float]]], succeeded: float) -> list[str]:
    """Client's count against the server's over the same seconds, as far as these are the same and each request is at one place."""
    ours = sum(piece.stats.count for piece, _ in read)
    # Triton counts a Python model's error replies as successes (seen with 2.51).
    failures = sum(sum(piece.failures.values()) for piece, _ in read)
    within = [_in_flight(phase.load, piece) for piece, _ in read]
    # One slice may be off by what is in flight at both of its ends; that all are, to the same side, does not happen.
    allowed = sum(within) + max(within) + sum(_during_scrapes(piece) for piece, _ in read) + 0.01 * max(ours, succeeded)
    if ours - allowed <= succeeded <= ours + failures + allowed:
        return []
    why = "other clients?" if succeeded > ours else "replies from elsewhere, such as a cache or a proxy?"
    return [f"client counted {ours} replies, the server {succeeded:.0f}: {why}"]


def _in_flight(load: Load, piece: Slice) -> float:
    """Requests that may, at an end of a slice, be counted by the server and not yet here, or the other way round.

    Replies are on their way, and Triton counts a request only after it has answered.
    """
    if load.kind == "concurrency":
        return load.value
    return max(LEAST_IN_FLIGHT, _rate(piece) * (piece.stats.latency.mean_ns or 0.0) / 1e9)  # Little's law


def _during_scrapes(piece: Slice) -> float:
    """Replies by which the counts may differ because the server's are of some moment of a scrape, and ours of its middle.

    On a busy machine a scrape takes as long as many replies, half of it either way; the rate may then be twice the mean.
    """
    return _rate(piece) * piece.scrapes_s


def _rate(piece: Slice) -> float:
    return piece.stats.count / piece.seconds if piece.seconds else 0.0


def read_telemetry(
    slices: Sequence[Summaries],
    seconds: float,
    gpu_keys: Iterable[str],
    problems: Mapping[str, str],
    cadences: Mapping[str, float],
) -> tuple[dict[str, Reading], dict[str, dict[str, Reading]]]:
    """(host tag -> reading, GPU key -> tag -> reading); memory figures from the first slice only."""
    whole = merge(slices)
    first = slices[0] if slices else {}
    seen = {series.subject for series in whole}

    def read(metric: Metric, subject: str) -> Reading:
        unseen = None if subject in seen else f"no scrape within the measured {seconds:.1f} s showed it"
        why = _why_absent(metric, problems, subject, unseen)
        summaries = first if metric.first_round else whole
        found = read_metric(metric, subject, summaries, seconds, why, cadences)
        if found.value is None and metric.first_round:
            # Better from a later round than not at all; the note says so.
            later = read_metric(metric, subject, whole, seconds, why, cadences)
            if later.value is not None:
                return Reading(later.value, later.source, later.samples, later.fresh,
                               note=f"{metric.header}: no refresh in the first round, taken from a later one")  # fmt: skip
        return found

    host = {metric.tag: read(metric, "") for metric in host_metrics()}
    gpus = {key: {metric.tag: read(metric, key) for metric in gpu_metrics()} for key in gpu_keys}
    for key, readings in gpus.items():
        fresh = _refreshes(whole, key)
        source = readings["gpu_utilization"].source or readings["gpu_used_memory"].source or next(iter(fresh), "")
        readings["gpu_fresh_samples"] = Reading(float(fresh.get(source, 0)), source)
        every_s = cadences.get(source)
        reason = None if every_s is not None else "fewer than two refreshes were seen"
        readings["gpu_refresh_interval"] = Reading(every_s, source, reason=reason)
    return host, gpus


def _why_absent(metric: Metric, problems: Mapping[str, str], subject: str, unseen: str | None) -> str:
    """What is wrong with the sources that could show the metric; else that none was seen, or that they do not."""
    sources = dict.fromkeys(source_of(name) for name in metric.sources)
    told = "; ".join(f"{source}: {problems[source]}" for source in sources if source in problems)
    reports = f"no source reports {' or '.join(metric.sources)}" if subject else "not reported by the server"
    return told or unseen or reports


def _refreshes(summaries: Summaries, key: str) -> dict[str, int]:
    """Source -> distinct refreshes that showed the GPU."""
    found: dict[str, int] = {}
    for series, summary in summaries.items():
        if series.subject == key:
            source = source_of(series.name)
            found[source] = max(summary.fresh, found.get(source, 0))
    return found


def _gpu_values(
    gpus: Mapping[str, Mapping[str, Reading]],
    problems: Mapping[str, str],
    slices: Sequence[Slice],
    telemetry: Sequence[Summaries],
    seconds: float,
    inferences: int,
) -> tuple[Values, Reasons, list[str]]:
    """Figures across the GPUs, energy per inference, and notes."""
    values: Values = {}
    reasons: Reasons = {}
    for metric in gpu_metrics():
        readings = [readings[metric.tag] for readings in gpus.values()]
        values[metric.tag] = across(metric, readings)
        if values[metric.tag] is None:
            reasons[metric.tag] = next((r.reason for r in readings if r.reason), no_gpu_reason(problems))
    energy = energy_per_inference(slices, gpus, inferences, no_gpu_reason(problems))
    for tag, value, why in (
        ("energy_per_inference", energy.joules, energy.reason),
        ("energy_per_inference_ci", energy.half_width, energy.interval_reason),
    ):
        values[tag] = value
        if value is None:
            reasons[tag] = why
    whole = merge(telemetry)
    notes = [note for key in gpus if (note := disagreement(key, whole, seconds))]
    notes += [reading.note for readings in gpus.values() for reading in readings.values() if reading.note]
    return values, reasons, [*notes, *energy.notes]


def problem_notes(problems: Mapping[str, str]) -> list[str]:
    """A source that failed is told of, also where another fills every cell."""
    return [f"{source}: {text}" for source, text in sorted(problems.items())]


def no_gpu_reason(problems: Mapping[str, str]) -> str:
    """Why there is no GPU at all."""
    if problems:
        return "; ".join(problem_notes(problems))
    return "no GPU: Triton reports none, and no DCGM exporter does"


def gpu_refreshes(slices: Sequence[Slice]) -> int | None:
    """Distinct refreshes of the slowest GPU inside these slices; None without a GPU.

    Of the exporter where one shows the GPU, as its figures come first; else of Triton.
    """
    keys = {key for piece in slices for key in piece.gpus}
    whole = merge(piece.telemetry for piece in slices)
    found = [_refreshes(whole, key) for key in keys]
    return min((preferred(each) or 0 for each in found), default=None)


def _distinct(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notes))
