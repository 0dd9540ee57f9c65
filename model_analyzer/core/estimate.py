"""How long a run takes: from its plan beforehand, corrected by what it took so far. Pure: the caller tells the time.

A phase takes so many measured seconds (the stop rule knows the least and the most of them), each of which takes some more
by the clock: warm-up, scrapes, drain. A variant takes a load, a pass over the sweep a server. What is not known is guessed
beforehand and replaced by what is seen, the more of it the more was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

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


@dataclass(slots=True)
class _Stint:
    """One variant's phases in one pass.

    open: phase id -> measured seconds so far, None before it was seen. setup_s: what comes before its load. measured_s: of
    all its phases in this run.
    """

    phases: int
    open: dict[str, float | None]
    setup_s: float
    measured_s: float = 0.0


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

    @property
    def value(self) -> float:
        return self.total / self.weight


@dataclass(slots=True)
class Outlook:
    """Seconds left of a run. Tell it what happens, with any clock's seconds that ascend.

    rule, slice_s: how a phase is measured. start_s: what comes before the first variant is loaded.
    """

    rule: StopRule = field(default_factory=StopRule)
    slice_s: float = 0.5
    start_s: float = 0.0
    _left: list[_Stint] = field(default_factory=list)
    _share: _Mean = field(default_factory=lambda: _Mean.guess(SHARE, SHARE_PHASES))
    _pace: _Mean = field(default_factory=lambda: _Mean.guess(1.0, PACE_S))
    _load: _Mean = field(default_factory=lambda: _Mean.guess(VARIANT_S, LOADS))
    # When the running stint began, when its first slice did (None: it has not), and the last time that was told.
    _began_s: float = 0.0
    _first_s: float | None = None
    _now_s: float = 0.0

    @classmethod
    def of(
        cls, groups: Sequence[Group], rule: StopRule, slice_s: float, baseline_s: float, ours: bool = True
    ) -> Outlook:
        """Of what is left to measure, in order. baseline_s: 0 where it is measured. ours: the server, started in each pass."""
        stints = []
        repeat = groups[0].repeat if groups else 0
        for group in groups:
            server_s = SERVER_S if ours and group.repeat != repeat else 0.0
            repeat = group.repeat
            stints.append(
                _Stint(len(group.phases), dict.fromkeys((phase.id for phase in group.phases), None), server_s)
            )
        start_s = baseline_s + (SERVER_S if ours and (groups or baseline_s) else 0.0)
        ramp_s = max((phase.load.ramp_s for group in groups for phase in group.phases), default=0.0)
        pace = _Mean.guess(1 + (SLICE_OVERHEAD_S + ramp_s) / slice_s, PACE_S)
        return cls(rule, slice_s, start_s, stints, _pace=pace)

    def begin(self, now_s: float) -> None:
        """The run begins."""
        self._began_s = self._now_s = now_s

    def running(self, phase_id: str, measured_s: float, now_s: float) -> None:
        """A phase runs; measured_s: of it in this repeat so far, without warm-up."""
        self._now_s = now_s
        stint = self._of(phase_id)
        if stint is None:
            return
        if stint is not self._left[0]:
            # What went before has ended without a word, such as a variant whose phases were measured elsewhere.
            self._next(now_s, self._left.index(stint))
        if self._first_s is None:
            self._first_s = now_s
            self._load.see(max(now_s - self._began_s - self.start_s - stint.setup_s, 0.0), 1.0)
        self._measured(stint, phase_id, measured_s)

    def finish(self, measurement: Measurement, now_s: float) -> int:
        """A phase is done in this repeat; how many repeats that settles: of one that failed or makes no sense, all."""
        self._now_s = now_s
        phase_id, repeated = measurement.phase.id, measurement.status in ("ok", "unstable")
        stint = self._of(phase_id)
        if stint is None:
            return 1
        if repeated:
            self._learn(stint, phase_id, measurement)
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
        if not self._left:
            return max(self.start_s - (now_s - self._began_s), 0.0)
        share, load_s = self._share.value, self._load.value
        first, *later = self._left
        pace = self._pace_of(first)
        running_s = pace * sum(self._more_s(first, measured, share) for measured in first.open.values())
        if self._first_s is None:
            running_s += max(self.start_s + first.setup_s + load_s - (now_s - self._began_s), 0.0)
        else:
            # What was told last is the state of then; of what goes on since, not more than is left can be over.
            running_s = max(running_s - (now_s - self._now_s), 0.0)
        return running_s + sum(
            each.setup_s
            + load_s
            + self._pace.value * sum(self._more_s(each, done, share) for done in each.open.values())
            for each in later
        )

    def _of(self, phase_id: str) -> _Stint | None:
        return next((stint for stint in self._left if phase_id in stint.open), None)

    @staticmethod
    def _measured(stint: _Stint, phase_id: str, measured_s: float) -> None:
        """What a resumed phase has at first took no time of this run."""
        before = stint.open[phase_id]
        stint.open[phase_id] = measured_s
        if before is not None:
            stint.measured_s += max(measured_s - before, 0.0)

    def _learn(self, stint: _Stint, phase_id: str, measurement: Measurement) -> None:
        """How much of the time that it may take a phase took."""
        low, high = self._bounds(stint)
        took = stint.open[phase_id] or 0.0
        if measurement.repeats <= 1:
            took = max(took, measurement.values.get("measured_seconds") or 0.0)
            self._measured(stint, phase_id, took)
        if high > low:
            self._share.see(max(took - low, 0.0) / (high - low), 1.0)

    def _next(self, now_s: float, index: int) -> None:
        """The stint with this index of those left is the running one now."""
        if self._first_s is not None and self._left[0].measured_s:
            self._pace.see(now_s - self._first_s, self._left[0].measured_s)
        self._left = self._left[index:]
        self._began_s, self._first_s, self.start_s = now_s, None, 0.0

    def _pace_of(self, stint: _Stint) -> float:
        """Seconds by the clock for a measured one: of this variant as far as it was seen, a slow one has its own."""
        if self._first_s is None:
            return self._pace.value
        seen = _Mean.guess(self._pace.value, PACE_S)
        seen.see(self._now_s - self._first_s, stint.measured_s)
        return seen.value

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

    def _more_s(self, stint: _Stint, so_far_s: float | None, share: float) -> float:
        """Measured seconds that a phase will still take, most likely."""
        low, high = self._bounds(stint)
        measured_s = so_far_s or 0.0
        if measured_s >= high:
            # Beyond, it is extended for GPU samples, one slice after the other.
            return self.slice_s if measured_s > high + self.slice_s / 2 else 0.0
        if measured_s <= low:
            return low - measured_s + share * (high - low)
        return share * (high - measured_s)
