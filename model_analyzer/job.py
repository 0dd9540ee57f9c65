"""A job as it is laid out before anything is touched: its spec, the groups of phases that it measures, and the ids of both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from model_analyzer.adapters import jobfile, store
from model_analyzer.adapters.fingerprint import fingerprint
from model_analyzer.adapters.intervals import read_intervals
from model_analyzer.core.estimate import Outlook
from model_analyzer.core.load import of_intervals
from model_analyzer.core.plan import Group, content_id, plan
from model_analyzer.core.search import Sweep
from model_analyzer.core.shard import share
from model_analyzer.core.spec import JobSpec, ResolvedModel, pairs
from model_analyzer.core.stopping import StopRule
from model_analyzer.core.variant import ServerSettings
from model_analyzer.core.wording import without_secrets
from model_analyzer.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Job:
    """A job spec, laid out. groups: what this run measures. baseline_id: content hash of the server-only row.

    intervals_ns: Load.intervals -> the custom intervals.
    whole: the groups of all shards. shard: which one this run is; None: it is all of them, or it was not said.
    """

    spec: JobSpec
    warnings: tuple[Fault, ...]
    mode: str
    groups: tuple[Group, ...]
    baseline_id: str
    whole: tuple[Group, ...]
    shard: int | None
    intervals_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def phase_ids(self) -> list[str]:
        """Every phase that this run measures, in the order of the rows."""
        return ids_of(self.groups)

    @property
    def base(self) -> Path:
        """The export path as the job says it, which all shards share; absolute."""
        return Path(self.spec.export_path).absolute()

    @property
    def export_path(self) -> Path:
        """Where this run writes; absolute."""
        return self.base if self.shard is None else self.base / f"{store.SHARD}{self.shard}"

    def shard_ids(self) -> list[list[str]]:
        """The phases of each shard; of all where there is one."""
        return [ids_of(part) for part in self._parts()]

    def outlook(self, left: Sequence[Group], baseline: bool) -> Outlook:
        """How long a run takes that has these groups left to measure, and the baseline or not."""
        spec = self.spec
        baseline_s = spec.duration_seconds if baseline else 0.0
        ours = self.mode != "remote"
        return Outlook.of(left, rule_of(spec), spec.slice_seconds, baseline_s, ours, self.request_counts())

    def request_counts(self) -> dict[str, int]:
        """Model name -> how many requests a phase of it measures; without those that the stop rule ends."""
        return {model.name: count for model in self.spec.models() if (count := model.request_count) is not None}

    def estimate_s(self) -> float:
        """Seconds that the whole job most likely takes where nothing is measured yet: of several shards the longest."""
        return max(each.left_s(0.0) for each in self._outlooks())

    def bounds_s(self) -> tuple[float, float]:
        """The least and the most that they can be, by what the stop rule leaves open."""
        least, most = zip(*(each.bounds_s(0.0) for each in self._outlooks()), strict=True)
        return max(least), max(most)

    def _outlooks(self) -> list[Outlook]:
        """Of each shard, with nothing measured yet."""
        return [self.outlook(Sweep(part, {}, self.spec.repeats).left, True) for part in self._parts()]

    def _parts(self) -> list[tuple[Group, ...]]:
        """The groups of each shard; of all where there is one."""
        return [share(self.whole, self.spec.shards, index) for index in range(self.spec.shards)]

    def unknown(self) -> list[str]:
        """What else decides on that time and is not known beforehand, in words."""
        counts, closed = self.request_counts(), _closed_loops(self.whole)
        slow = sorted(closed & counts.keys())
        found = [f"how fast {_listed(slow)} will answer (request_count)"] if slow else []
        if (samples := self.spec.min_gpu_samples) and self.spec.gpus:
            found.append(
                f"how often GPU telemetry refreshes (min_gpu_samples {samples}: up to {samples} x 30 s a phase with the"
                " DCGM exporter's default)"
            )
        return found


def load_job(config_file: Path | None, values: Mapping[str, Any], flag_names: Mapping[str, str]) -> Job:
    """Read, check and lay out a job; touches nothing. Raises SpecError, with the warnings that there are beside it."""
    spec, warnings = jobfile.load(config_file, values, os.environ, flag_names)
    try:
        return _laid_out(spec, warnings)
    except SpecError as error:
        raise error.beside(warnings) from error.__cause__


def _laid_out(spec: JobSpec, warnings: Sequence[Fault]) -> Job:
    mode = spec.triton_launch_mode or ("local" if shutil.which(spec.triton_server_path) else "embedded")
    intervals: dict[str, tuple[int, ...]] = {}
    models = [_with_intervals(model, spec, intervals) for model in spec.models()]
    conditions = _conditions(spec, mode)
    fingerprints = {model.name: _fingerprint(spec, model.name, model.input_source.path) for model in models}
    whole = plan(models, spec.client_protocol, conditions, fingerprints)
    baseline = content_id({**conditions, "seconds": spec.duration_seconds, "server": asdict(default_server(spec))})
    shard = _shard_index(spec)
    groups = whole if shard is None else share(whole, spec.shards, shard)
    return Job(spec, tuple(warnings), mode, groups, baseline, whole, shard, intervals)


def _with_intervals(model: ResolvedModel, spec: JobSpec, known: dict[str, tuple[int, ...]]) -> ResolvedModel:
    """The model with the load that its file of intervals makes, which is added to `known`. Raises SpecError."""
    if model.request_intervals is None:
        return model
    intervals_ns = read_intervals(Path(model.request_intervals))
    load = of_intervals(intervals_ns, spec.max_concurrency, spec.ramp_seconds)
    known[load.intervals] = intervals_ns
    return replace(model, loads=(load,))


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:most])} and {more} more"


def _closed_loops(groups: Sequence[Group]) -> set[str]:
    """The models that have a closed loop."""
    return {group.variant.model for group in groups for phase in group.phases if phase.load.kind == "concurrency"}


def ids_of(groups: Sequence[Group]) -> list[str]:
    """The ids of the groups' phases, in the order of the rows."""
    return [phase.id for group in groups for phase in group.phases]


def _shard_index(spec: JobSpec) -> int | None:
    """Which shard this run is; None where there is one only, or nobody says it. Raises SpecError."""
    index, where = spec.shard_index, "shard_index"
    if index is None and spec.shards > 1 and (text := os.environ.get("JOB_COMPLETION_INDEX")):
        where = "JOB_COMPLETION_INDEX"
        if not text.isdecimal():
            raise SpecError(where, f"is {text!r}", f"give --shard-index 0 to {spec.shards - 1}")
        index = int(text)
    if index is not None and index >= spec.shards:
        fix = f"use 0 to {spec.shards - 1}, or more shards" if spec.shards > 1 else "give the number of shards, too"
        raise SpecError(where, f"shard {index} of {spec.shards}: they count from 0", fix)
    return index if spec.shards > 1 else None


def _conditions(spec: JobSpec, mode: str) -> dict[str, Any]:
    """What affects every phase's result beside the phase itself. A password does not: a new one measures nothing anew."""
    exporters = [without_secrets(url) for url in spec.dcgm_exporter_url]
    metrics = without_secrets(spec.triton_metrics_url)
    identity = {
        "remote": [spec.triton_http_endpoint, spec.triton_grpc_endpoint, metrics],
        "docker": [
            spec.triton_docker_image,
            spec.triton_docker_args,
            spec.triton_docker_mounts,
            spec.triton_docker_shm_size,
        ],
        "local": [shutil.which(spec.triton_server_path) or spec.triton_server_path],
        "embedded": [_installed("nvidia-pytriton")],
    }[mode]
    return {
        "rule": asdict(rule_of(spec)),
        "slice_seconds": spec.slice_seconds,
        "request_timeout_seconds": spec.request_timeout_seconds,
        "min_gpu_samples": spec.min_gpu_samples,
        "client": [spec.client_workers, spec.client_cpus],
        "gpus": spec.gpus,
        "dcgm": () if spec.dcgm_disable else [exporters, spec.dcgm_discovery],
        "mode": mode,
        "server": [identity, spec.triton_server_identity],
    }


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _fingerprint(spec: JobSpec, model: str, data_file: str | None) -> str:
    paths = [Path(data_file)] if data_file else []
    if spec.model_repository is not None and "://" not in spec.model_repository:
        paths.append(Path(spec.model_repository) / model)
    return fingerprint(paths)


def rule_of(spec: JobSpec) -> StopRule:
    """When a phase of the job is done."""
    return StopRule(spec.stop_rule, spec.min_seconds, spec.max_seconds, spec.precision, spec.latency_precision)


def default_server(spec: JobSpec) -> ServerSettings:
    """The server of the baseline, and of every model without settings of its own."""
    return ServerSettings(pairs(spec.triton_server_flags), pairs(spec.triton_server_environment))
