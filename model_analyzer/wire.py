"""The composition root: the only file that names concrete adapters."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from model_analyzer import __version__
from model_analyzer.adapters import store, tables, termination
from model_analyzer.adapters.clock import SystemClock
from model_analyzer.adapters.cpus import check_cpus, usable_cpus
from model_analyzer.adapters.files import remove_drafts
from model_analyzer.adapters.gpu_locks import GpuLocks
from model_analyzer.adapters.progress import JsonProgress, LineProgress, Several
from model_analyzer.adapters.rest import Rest
from model_analyzer.adapters.resume import elsewhere, goes_on, take_over
from model_analyzer.core.ending import ending
from model_analyzer.core.estimate import Outlook
from model_analyzer.core.hardware import UNKNOWN, GpuTypes, types_on
from model_analyzer.core.measurement import Measurement
from model_analyzer.core.metric import REPEAT_FIELDS
from model_analyzer.core.repeats import as_asked, begun, enough
from model_analyzer.core.search import Search, Sweep
from model_analyzer.core.spec import JobSpec
from model_analyzer.core.values import host_port
from model_analyzer.core.variant import ServerInfo
from model_analyzer.engine.group import Parts, Settings
from model_analyzer.engine.recorder import Recorder
from model_analyzer.engine.run import Run
from model_analyzer.errors import (
    AnalyzerError,
    ExportPathError,
    Interrupted,
    SpecError,
)
from model_analyzer.interrupt import Interruption, interruptible
from model_analyzer.job import Job, default_server, ids_of, rule_of
from model_analyzer.ports import GpuClaims, Progress, Sampler

if TYPE_CHECKING:
    from model_analyzer.adapters.triton.launch import Launch
    from model_analyzer.adapters.triton.owned import OwnedServer
    from model_analyzer.adapters.triton.remote import RemoteServer

# The tables of a large run take seconds to write. Beyond TABLES_SHORT_S each time, it takes no more of the run than
# TABLES_SHARE; they are written at its end in any case.
TABLES_SHARE, TABLES_SHORT_S = 0.02, 0.2
# A pod's grace period is 30 s, a person's patience shorter: an interrupted run gives the server so long.
INTERRUPTED_GRACE_S = 1.5


def layout_of(spec: JobSpec) -> tables.Layout:
    """The tables of a job."""
    return tables.Layout(
        tuple(dict.fromkeys((*spec.inference_output_fields, *(REPEAT_FIELDS if spec.repeats > 1 else ())))),
        spec.gpu_output_fields,
        spec.server_output_fields,
        spec.filename_model_inference,
        spec.filename_model_gpu,
        spec.filename_server_only,
        {model.name: model.constraints for model in spec.models()},
        spec.gpu_prices,
    )


class Tables:
    """A ports.Outputs: the three CSV files, from the open store."""

    def __init__(self, layout: tables.Layout, contents: store.Contents, job: Job, interruption: Interruption) -> None:
        self._layout, self._contents, self._job, self._interruption = layout, contents, job, interruption
        self._rest = Rest(TABLES_SHARE, TABLES_SHORT_S)
        self._late = False

    def refresh(self) -> None:
        """Rewrite them, now or later. Raises ExportPathError; Interrupted where a signal was lost on its way."""
        self._interruption.check()
        if self._rest.is_over():
            self.write()
        else:
            self._late = True

    def finish(self) -> None:
        """Rewrite them where the store has more, in the clean-up of an interrupted run too. Raises ExportPathError."""
        if self._late:
            self.write()

    def write(self) -> None:
        """Rewrite them. Raises ExportPathError."""
        baselines = [one for id_, one in self._contents.baselines.items() if id_ == self._job.baseline_id]
        with self._rest.after():
            tables.write_csvs(self._job.export_path, self._layout, self.measurements(), baselines)
        self._late = False

    def measurements(self) -> Sequence[Measurement]:
        """Those of the job, in the order of its plan; read one after the other, each time."""
        measured, asked = self._contents.measurements, self._job.spec.repeats
        ids = [i for i in self._job.phase_ids if i in measured]
        return store.Ordered(measured, ids, lambda m: as_asked(m, asked))


def profile(job: Job, console: Console, live: bool, kept: bool = True) -> int:
    """Measure what is left of a job; the exit code. Raises AnalyzerError; what is finished is kept.

    kept: whether the export path outlives the run, so that it is worth saying where the tables are.
    """
    from model_analyzer.adapters.triton.shared_memory import remove_leftovers

    if job.spec.shards > 1 and job.shard is None:
        what = f"{job.spec.shards} shards, and nothing says which one this run is"
        fix = f"give --shard-index 0 to {job.spec.shards - 1} (an Indexed Job sets JOB_COMPLETION_INDEX)"
        raise SpecError("shards", what, fix)
    check_cpus(job.spec.client_cpus)
    waiting = _log(job, Outlook()).say
    with (
        interruptible() as interruption,
        store.JsonlStore(job.export_path, job.spec.export_path_wait_seconds, waiting, job.spec.repeats) as opened,
        GpuLocks(job.base) as claims,
    ):
        layout = layout_of(job.spec)
        outputs = Tables(layout, opened.contents, job, interruption)
        opened.add_run(_run_record(job, layout, _gpu_types(job)))
        taken = take_over(opened, store.stores_of(job.base), job.phase_ids, job.baseline_id)
        for name in (layout.filename_inference, layout.filename_gpu, layout.filename_server):
            remove_drafts(job.export_path / name)
        outputs.refresh()
        done = _repeats_done(job, opened.contents)
        total, already = len(job.phase_ids) * job.spec.repeats, sum(done.values())
        search = Sweep(job.groups, done, job.spec.repeats)
        outlook = job.outlook(search.left, job.baseline_id not in opened.contents.baselines)
        progress = build_progress(job, live, outlook)
        progress.begin(total, already)
        begun_before = goes_on(opened.contents, [each for group in job.groups for each in group.phases], done)
        for line in (*_nothing_to_do(job), *taken, *begun_before, *elsewhere(opened.contents, job.phase_ids)):
            progress.say(line)
        try:
            remove_leftovers(progress.say)
            _run(job, opened, outputs, progress, search, interruption, claims)
            outputs.finish()
        except Interrupted:
            # It may have come between the store's line and the tables.
            outputs.write()
            raise
        except AnalyzerError:
            with suppress(ExportPathError):  # what ended the run is told
                outputs.finish()
            raise
        finally:
            progress.end()
        tables.summary(console, outputs.measurements(), layout)
        if kept:
            _say_where(job.export_path, layout, console)
            if job.shard is not None:
                what = f"Shard {job.shard} of {job.spec.shards}; when all have ended: model-analyzer merge {job.base} -o FOLDER"
                console.print(what, soft_wrap=True, highlight=False)
        # What satisfies the constraints may be another shard's: `merge` judges.
        code, why = ending(outputs.measurements(), {} if job.shard is not None else layout.constraints)
        termination.leave(why)
        return code


def _repeats_done(job: Job, contents: store.Contents) -> dict[str, int]:
    """Phase id -> how many of its repeats need not be measured any more: all where it is finished."""
    known, asked, pieces = contents.outcomes, job.spec.repeats, contents.pieces
    return {
        each: asked if enough(known.get(each), asked) else begun(known.get(each), pieces.get(each, ()))
        for each in job.phase_ids
    }


def build_progress(job: Job, live: bool, outlook: Outlook) -> Progress:
    """All that is told of a run, to all that asked. live: somebody looks at a terminal. Raises SpecError for a taken port."""
    spec = job.spec
    shown = _terminal(outlook) if live and spec.log_format == "text" else _log(job, outlook)
    listeners: list[Progress] = [shown]
    if spec.metrics_port:
        from model_analyzer.adapters.own_metrics import OwnMetrics

        listeners.append(OwnMetrics(spec.metrics_port, outlook))
    if spec.annotate_job:
        from model_analyzer.adapters.kubernetes.annotations import JobAnnotations, patch_job

        patch = patch_job(spec.annotate_job, os.environ.get("POD_NAMESPACE"))
        suffix = "" if job.shard is None else f"-{job.shard}"
        listeners.append(JobAnnotations(patch, outlook, shown.say, suffix))
    return Several(listeners) if len(listeners) > 1 else shown


def _terminal(outlook: Outlook) -> Progress:
    from model_analyzer.adapters.terminal import TerminalProgress

    return TerminalProgress(outlook)


def _log(job: Job, outlook: Outlook) -> Progress:
    return (JsonProgress if job.spec.log_format == "json" else LineProgress)(outlook, repeats=job.spec.repeats)


def _nothing_to_do(job: Job) -> list[str]:
    if job.groups:
        return []
    what = f"shard {job.shard} has nothing to measure: {job.spec.shards} shards, {len(job.whole)} variants"
    return [f"{what}; a variant is measured by one shard"]


def _run_record(job: Job, layout: tables.Layout, gpu_types: GpuTypes) -> dict[str, Any]:
    sharded = {} if job.shard is None else {"plan": ids_of(job.whole), "shard": job.shard, "shards": job.spec.shards}
    return {
        "version": __version__,
        "at": SystemClock().utc().isoformat(timespec="seconds"),
        "phases": job.phase_ids,
        "repeats": job.spec.repeats,
        "baseline": job.baseline_id,
        "layout": asdict(layout),
        "gpu_types": sorted(gpu_types),
        **sharded,
    }


def _run(
    job: Job,
    opened: store.JsonlStore,
    outputs: Tables,
    progress: Progress,
    search: Search,
    interruption: Interruption,
    claims: GpuClaims,
) -> None:
    from model_analyzer.adapters.triton.requests import TritonEncoder
    from model_analyzer.loadgen.client import ProcessLoadGenerator

    if not job.groups:
        return
    clock, generator = SystemClock(), ProcessLoadGenerator(job.spec.client_cpus)
    server = build_server(job, progress, opened)
    parts = Parts(
        server=server,
        generator=generator,
        encoder=TritonEncoder(lambda: server.api, progress.say),
        watch=lambda info: Recorder(_samplers(job.spec, info, progress.say), job.spec.monitoring_interval, clock),
        store=opened,
        outputs=outputs,
        progress=progress,
        clock=clock,
        claims=claims if job.shard is not None else None,
    )
    baseline = None if job.baseline_id in opened.contents.baselines else job.baseline_id

    def hurry() -> None:
        server.grace_s = INTERRUPTED_GRACE_S

    interruption.hurry = hurry
    # Modules and the plan stay: a collection in the middle of a slice shall not look through them.
    gc.freeze()
    try:
        Run(parts, _settings(job)).execute(search, baseline, default_server(job.spec))
    finally:
        generator.close()


def _samplers(spec: JobSpec, server: ServerInfo, say: Callable[[str], None]) -> list[Sampler]:
    from model_analyzer.adapters.telemetry.sources import exporters
    from model_analyzer.adapters.telemetry.triton import TritonSampler

    return [TritonSampler(server.metrics_url), *_host(server.pids), *exporters(spec, os.environ, say)]


def _host(pids: Sequence[int]) -> list[Sampler]:
    """None for a server that is not ours: nothing of it can be read, and its host may be another."""
    if not pids:
        return []
    from model_analyzer.adapters.telemetry.host import HostSampler

    return [HostSampler(pids)]


def _gpu_types(job: Job) -> GpuTypes:
    """The GPU types that this run will measure on; unknown where no exporter can be read now."""
    from model_analyzer.adapters.telemetry.sources import exporters, gpu_choice
    from model_analyzer.adapters.telemetry.triton import TritonSampler

    spec = job.spec
    # What is found, or not, is told once, by the run itself.
    found = exporters(spec, os.environ, say=lambda _: None)
    if not found:
        return UNKNOWN
    # A server that is up already narrows the exporter's GPUs down to its own.
    triton = [TritonSampler(spec.triton_metrics_url)] if job.mode == "remote" else []
    pages = [sampler.sample() for sampler in (*found, *triton)]
    return types_on(pages, gpu_choice(spec, job.mode, os.environ))


def _settings(job: Job) -> Settings:
    from model_analyzer.adapters.telemetry.sources import gpu_choice

    spec = job.spec
    return Settings(
        rule=rule_of(spec),
        slice_s=spec.slice_seconds,
        request_timeout_s=spec.request_timeout_seconds,
        min_gpu_samples=spec.min_gpu_samples,
        tls={model.name: model.tls for model in spec.models()},
        gpus=gpu_choice(spec, job.mode, os.environ),
        baseline_s=spec.duration_seconds,
        workers=None if spec.client_workers == "auto" else spec.client_workers,
        cpus=usable_cpus(spec.client_cpus),
        request_counts=job.request_counts(),
        intervals_ns=job.intervals_ns,
    )


def build_server(job: Job, progress: Progress, opened: store.JsonlStore) -> OwnedServer | RemoteServer:
    """The server of the job's launch mode, not started yet."""
    from model_analyzer.adapters.telemetry.sources import wanted_gpus
    from model_analyzer.adapters.triton.launch import Launch

    spec = job.spec
    if job.mode == "remote":
        return _remote(spec, progress, opened)
    launch = Launch(
        repository=_repository(spec),
        log_path=Path(spec.triton_output_path) if spec.triton_output_path else job.export_path / "triton.log",
        monitoring_interval_s=spec.monitoring_interval,
        protocol=spec.client_protocol,
        tls=next((model.tls for model in spec.models()), None),
        gpus=wanted_gpus(spec),
        ready_timeout_s=spec.server_start_timeout_seconds,
        control_over_http=_have_paths(spec),
        say=progress.say,
    )
    if job.mode == "docker":
        return _docker(job, launch)
    from model_analyzer.adapters.triton.embedded import find_embedded
    from model_analyzer.adapters.triton.local import LocalServer, find_local

    return LocalServer(launch, find_embedded if job.mode == "embedded" else lambda: find_local(spec.triton_server_path))


def _have_paths(spec: JobSpec) -> bool:
    """Whether all models can be reached over HTTP, too."""
    from model_analyzer.adapters.triton.wire_api import has_path

    return all(has_path(model.name) for model in spec.models())


def _repository(spec: JobSpec) -> Path:
    if spec.model_repository is None:
        raise SpecError("model_repository", "is missing", "name the folder of the models")
    # Path() would make s3:/ of s3://; Triton reads such a repository itself.
    return Path(spec.model_repository) if "://" in spec.model_repository else Path(spec.model_repository).absolute()


def _remote(spec: JobSpec, progress: Progress, opened: store.JsonlStore) -> RemoteServer:
    from model_analyzer.adapters.triton.remote import Before, RemoteEndpoints, RemoteServer

    http, grpc = host_port(spec.triton_http_endpoint), host_port(spec.triton_grpc_endpoint)
    used = host_port(spec.endpoint)
    return RemoteServer(
        RemoteEndpoints(http, grpc, spec.triton_metrics_url, spec.one_server and _have_paths(spec)),
        protocol=spec.client_protocol,
        tls=next((model.tls for model in spec.models()), None),
        max_retries=spec.client_max_retries,
        touch_models_in_use=spec.touch_models_in_use,
        reload_model_disable=spec.reload_model_disable,
        say=progress.say,
        left={model: Before(**before) for (at, model), before in opened.contents.touched.items() if at == used},
        remember=lambda model, before: opened.add_touched(used, model, asdict(before)),
    )


def _docker(job: Job, launch: Launch) -> OwnedServer:
    from model_analyzer.adapters.triton.docker import DockerOptions, DockerServer

    spec = job.spec
    options = DockerOptions(
        image=spec.triton_docker_image,
        export_path=job.export_path,
        mounts=spec.triton_docker_mounts,
        labels=spec.triton_docker_labels,
        shm_size=spec.triton_docker_shm_size,
        host_ipc=any(model.input_source.shared_memory for model in spec.models()),
        arguments=spec.triton_docker_args,
    )
    return DockerServer(launch, options)


def _say_where(export_path: Path, layout: tables.Layout, console: Console) -> None:
    console.print(f"Tables: {export_path / layout.filename_inference}", soft_wrap=True, highlight=False)
    for name in (layout.filename_gpu, layout.filename_server):
        console.print(f"        {export_path / name}", soft_wrap=True, highlight=False)
