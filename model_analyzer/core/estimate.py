"""How long a run takes: from its plan beforehand, corrected by what it took so far. Pure: the caller tells the time.

A phase takes so many measured seconds (the stop rule knows the least and the most of them, its slices forecast where in
between), each of which takes some more by the clock: warm-up, scrapes, drain. A variant takes a load, a pass over the sweep
a server. What is not known is guessed beforehand and replaced by what is seen, the more of it the more was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean

from model_analyzer.core.forecast import Forecast
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.plan import Group
from model_analyzer.core.stopping import INTERVAL_SLICES, LEAST_SPAN_S, PERF_ANALYZER_WINDOWS, StopRule

# What a run takes beside its measured seconds, as runs of the quick start took it on two cores: warm-up, scrapes and drain
# of a slice; load and unload of a variant; start and stop of the server.
SLICE_OVERHEAD_S, VARIANT_S, SERVER_S = 0.35, 2.5, 4.0
# Of the time between the least and the most of a phase's stop rule: a server that moves, as most do, takes nearly all.
SHARE = 0.75
# How much the guesses weigh against what is seen: phases, measured seconds, loads.
SHARE_PHASES, PACE_S, LOADS = 0.25, 1.0, 0.5
# A load that takes longer than loads did goes on for this share of what it is late: less, and one that takes a minute
# would seem to be over all the time; more, and it would never seem to end.
LATE_SHARE = 0.75


@dataclass(slots=True)
class _Stint:
    """One variant's phases in one pass.

    open: phase id -> measured seconds so far, None before it was seen. setup_s: what comes before its load. counted: a
    number of requests ends its phases. measured_s: of all its phases in this run, waited_s: waits for GPU telemetry not
    among them.
    """

    phases: int
    open: dict[str, float | None]
    setup_s: float
    counted: bool = False
    measured_s: float = 0.0
    waited_s: float = 0.0


@dataclass(slots=True)
class _Mean:
    """A mean that begins as a guess. weight: how much of what is seen the guess is worth."""

    total: float
    weight: float

    @classmethod
    def guess(cls, value: float, weight: float) -> _Mean:
        return cls(value * weight, weight)

    def see(self, total: float, weight: float) -> None:
        self.total += total
        self.weight += weight

    def and_(self, total: float, weight: float) -> float:
        """Its value were this seen, too."""
        return (self.total + total) / (self.weight + weight)

    @property
    def value(self) -> float:
        return self.total / self.weight


@dataclass(frozen=True, slots=True)
class _Likely:
    """What is to be expected of a phase that has no forecast.

    share: of the time between its least and its most. counted_s: measured seconds, where a number of requests ends it; None:
    nothing is known. waits_s: for GPU telemetry.
    """

    share: float
    counted_s: float | None = None
    waits_s: float = 0.0


@dataclass(slots=True)
class Outlook:
    """Seconds left of a run. Tell it what happens, with any clock's seconds that ascend.

    rule, slice_s: how a phase is measured. start_s: what comes before the first variant is loaded.
    """

    rule: StopRule = field(default_factory=StopRule)
    slice_s: float = 0.5
    start_s: float = 0.0
    _left: list[_Stint] = field(default_factory=list)
    # Phase id -> its forecast, or what it took: another repeat of it will take the same.
    _forecasts: dict[str, Forecast] = field(default_factory=dict)
    _share: _Mean = field(default_factory=lambda: _Mean.guess(SHARE, SHARE_PHASES))
    _pace: _Mean = field(default_factory=lambda: _Mean.guess(1.0, PACE_S))
    _load: _Mean = field(default_factory=lambda: _Mean.guess(VARIANT_S, LOADS))
    # When the running stint began, when its first slice did (None: it has not), and when its last one ended.
    _began_s: float = 0.0
    _first_s: float | None = None
    _last_s: float = 0.0

    @classmethod
    def of(
        cls,
        groups: Sequence[Group],
        rule: StopRule,
        slice_s: float,
        baseline_s: float,
        ours: bool = True,
        counts: Mapping[str, int] = {},
    ) -> Outlook:
        """Of what is left to measure, in order.

        baseline_s: 0 where it is measured. ours: the server, started in each pass. counts: model name -> requests that end
        a phase.
        """
        stints = []
        repeat = groups[0].repeat if groups else 0
        for group in groups:
            server_s = SERVER_S if ours and group.repeat != repeat else 0.0
            repeat = group.repeat
            opened: dict[str, float | None] = dict.fromkeys(phase.id for phase in group.phases)
            stints.append(_Stint(len(group.phases), opened, server_s, group.variant.model in counts))
        start_s = baseline_s + (SERVER_S if ours and (groups or baseline_s) else 0.0)
        ramp_s = max((phase.load.ramp_s for group in groups for phase in group.phases), default=0.0)
        pace = _Mean.guess(1 + (SLICE_OVERHEAD_S + ramp_s) / slice_s, PACE_S)
        return cls(rule, slice_s, start_s, stints, _rated(groups, counts), _pace=pace)

    def begin(self, now_s: float) -> None:
        """The run begins."""
        self._began_s = now_s

    def running(self, phase_id: str, measured_s: float, now_s: float, forecast: Forecast | None = None) -> None:
        """A phase runs; measured_s: of its whole slices in this repeat. forecast: None: nothing new."""
        stint = self._of(phase_id)
        if stint is None:
            return
        if stint is not self._left[0]:
            # What went before has ended without a word, such as a variant whose phases were measured elsewhere.
            self._next(now_s, self._left.index(stint))
        if self._first_s is None:
            self._first_s = self._last_s = now_s
            self._load.see(max(self._loading_s(stint, now_s), 0.0), 1.0)
        self._measured(stint, phase_id, measured_s, now_s)
        if forecast is not None:
            self._forecasts[phase_id] = forecast

    def finish(self, measurement: Measurement, now_s: float) -> int:
        """A phase is done in this repeat; how many repeats that settles: of one that failed or makes no sense, all."""
        self._last_s = now_s
        phase_id, repeated = measurement.phase.id, measurement.status in ("ok", "unstable")
        stint = self._of(phase_id)
        if stint is None:
            return 1
        if repeated:
            self._learn(stint, phase_id, measurement, now_s)
        settled = 0
        for each in self._left if not repeated else [stint]:
            settled += phase_id in each.open
            each.open.pop(phase_id, None)
        if not self._left[0].open:
            self._next(now_s, 1)
        self._left = [each for each in self._left if each.open]
        return settled

    def left_s(self, now_s: float) -> float:
        """Seconds until the last phase is done."""
        return self._left_s(now_s, None)

    def bounds_s(self, now_s: float) -> tuple[float, float]:
        """The least and the most that they can be, by what the stop rule leaves open."""
        return self._left_s(now_s, 0.0), self._left_s(now_s, 1.0)

    def _left_s(self, now_s: float, share: float | None) -> float:
        if not self._left:
            return max(self.start_s - (now_s - self._began_s), 0.0)
        first, *later = self._left
        load_s, likely = self._load_s(first, now_s), self._likely(first, share)
        running_s = self._stint_s(first, likely)
        if self._first_s is None:
            running_s += max(load_s - self._loading_s(first, now_s), 0.0)
        else:
            # Reckoned from whole slices: of the one that goes on, not more than is left can be over.
            running_s = max(running_s - (now_s - self._last_s), 0.0)
        return running_s + sum(each.setup_s + load_s + self._stint_s(each, likely) for each in later)

    def _of(self, phase_id: str) -> _Stint | None:
        return next((stint for stint in self._left if phase_id in stint.open), None)

    def _measured(self, stint: _Stint, phase_id: str, measured_s: float, now_s: float) -> None:
        """What a resumed phase has at first took no time of this run."""
        before_s = stint.open[phase_id]
        stint.open[phase_id] = measured_s
        if before_s is None or measured_s <= before_s:
            return
        self._last_s = now_s
        # A slice that waits for GPU telemetry is long, and says nothing of what others take beside their measured time.
        known = self._forecasts.get(phase_id)
        waits_from_s = known.seconds if known is not None and known.waits_s != 0 else measured_s
        waited_s = min(max(measured_s - waits_from_s, 0.0), measured_s - before_s)
        stint.waited_s += waited_s
        stint.measured_s += measured_s - before_s - waited_s

    def _learn(self, stint: _Stint, phase_id: str, measurement: Measurement, now_s: float) -> None:
        """How much of the time that it may take a phase took."""
        if measurement.repeats <= 1:
            took_s = measurement.values.get("measured_seconds") or 0.0
            self._measured(stint, phase_id, max(stint.open[phase_id] or 0.0, took_s), now_s)
        took_s, known = stint.open[phase_id] or 0.0, self._forecasts.get(phase_id)
        seconds = min(took_s, known.seconds) if known is not None and known.waits_s != 0 else took_s
        self._forecasts[phase_id] = Forecast(seconds, took_s - seconds)
        low, high = self._bounds(stint)
        if high > low and not stint.counted:
            self._share.see(max(seconds - low, 0.0) / (high - low), 1.0)

    def _next(self, now_s: float, index: int) -> None:
        """The stint with this index of those left is the running one now."""
        clock_s, measured_s = self._clock_and_measured_s()
        if measured_s:
            self._pace.see(clock_s, measured_s)
        self._left = self._left[index:]
        self._began_s, self._first_s, self.start_s = now_s, None, 0.0

    def _loading_s(self, stint: _Stint, now_s: float) -> float:
        """How long the running stint's load goes on, below 0 before it has begun."""
        return now_s - self._began_s - self.start_s - stint.setup_s

    def _load_s(self, first: _Stint, now_s: float) -> float:
        """What a load takes, by those seen and by the one that goes on."""
        usual_s = self._load.value
        late_s = self._loading_s(first, now_s) - usual_s if self._first_s is None else 0.0
        return usual_s + (1 + LATE_SHARE) * max(late_s, 0.0)

    def _clock_and_measured_s(self) -> tuple[float, float]:
        """Of the running stint since its first slice: seconds by the clock, waits left out, and measured ones."""
        running = self._left[0]
        if self._first_s is None:
            return 0.0, 0.0
        return max(self._last_s - self._first_s - running.waited_s, 0.0), running.measured_s

    def _pace_of(self, stint: _Stint) -> float:
        """Seconds by the clock for a measured one: of the running stint by what it shows itself, a slow model has its own."""
        known = _Mean.guess(self._pace.value, PACE_S) if stint is self._left[0] else self._pace
        return known.and_(*self._clock_and_measured_s())

    def _likely(self, first: _Stint, share: float | None) -> _Likely:
        """By the phases that are done, and the forecasts of those that run. share: taken as told."""
        known = [self._forecasts[phase_id].seconds for phase_id in first.open if phase_id in self._forecasts]
        waits = [each.waits_s for each in self._forecasts.values() if each.waits_s is not None]
        low, high = self._bounds(first)
        if share is None:
            told = [] if first.counted or high <= low else [(seconds - low) / (high - low) for seconds in known]
            share = self._share.and_(sum(min(max(one, 0.0), 1.0) for one in told), len(told))
        counted_s = fmean(known) if first.counted and known else None
        return _Likely(share, counted_s, fmean(waits) if waits else 0.0)

    def _bounds(self, stint: _Stint) -> tuple[float, float]:
        """The least and the most measured seconds of one of its phases."""
        rule = self.rule
        if rule.kind == "fixed":
            return self._whole(rule.min_s), self._whole(rule.min_s)
        slices = INTERVAL_SLICES if rule.kind == "interval" else PERF_ANALYZER_WINDOWS
        low = max(rule.min_s, slices * self.slice_s)
        if rule.kind == "interval":
            # A load that has the server for itself, or shares it with few, goes on until it has seen some seconds of it.
            low = max(low, LEAST_SPAN_S / stint.phases / self._pace_of(stint))
        high = self._whole(rule.max_s)
        return min(self._whole(low), high), high

    def _whole(self, seconds: float) -> float:
        """As whole slices."""
        return ceil(seconds / self.slice_s - 1e-3) * self.slice_s

    def _stint_s(self, stint: _Stint, likely: _Likely) -> float:
        """Seconds by the clock that its open phases will still take, most likely."""
        (low, high), pace = self._bounds(stint), self._pace_of(stint)
        guess_s = low + likely.share * (high - low)
        if stint.counted and likely.counted_s is not None:
            guess_s = likely.counted_s
        total_s = 0.0
        for phase_id, measured_s in stint.open.items():
            known, so_far_s = self._forecasts.get(phase_id), measured_s or 0.0
            if known is not None:
                seconds = known.seconds if stint.counted else max(known.seconds, low)
            elif so_far_s > low and not stint.counted:
                # It might have been done, and was not: what is left is what was expected of the rest.
                seconds = min(so_far_s, high) + likely.share * max(high - so_far_s, 0.0)
            else:
                seconds = guess_s
            waits_s = likely.waits_s if known is None or known.waits_s is None else known.waits_s
            total_s += pace * max(seconds - so_far_s, 0.0) + max(min(waits_s, seconds + waits_s - so_far_s), 0.0)
            if so_far_s > seconds + waits_s + self.slice_s / 2:
                # Nobody knows why it goes on: one slice after the other.
                total_s += self.slice_s
        return total_s


def _rated(groups: Sequence[Group], counts: Mapping[str, int]) -> dict[str, Forecast]:
    """Phases of an open loop that a number of requests ends: a server that keeps up answers as many as it is sent."""
    return {
        phase.id: Forecast(counts[group.variant.model] / phase.load.value)
        for group in groups
        if group.variant.model in counts
        for phase in group.phases
        if phase.load.kind == "request_rate"
    }
