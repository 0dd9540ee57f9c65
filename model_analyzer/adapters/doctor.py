"""What a run of a job needs, looked at from where it would run, without measuring.

Each check yields what it found. It raises what a run could not do without, and how to mend that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model_analyzer.adapters.cpus import check_cpus, usable_cpus
from model_analyzer.adapters.telemetry.sources import discovers, exporters, gpu_choice
from model_analyzer.adapters.triton.beforehand import faults
from model_analyzer.adapters.triton.wire_api import GrpcApi, HttpApi, Refused, Unreachable, WireApi, another_endpoint
from model_analyzer.core.gpus import select_gpus
from model_analyzer.core.spec import JobSpec
from model_analyzer.core.telemetry import Page
from model_analyzer.core.values import host_port
from model_analyzer.errors import AnalyzerError, ExportPathError, ServerError, SpecError

# warn: a run goes on without it. skip: not looked at.
Status = Literal["ok", "warn", "skip", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. exit_code: the process's, of a FAIL."""

    status: Status
    check: str
    text: str
    exit_code: int = 0


class ExporterError(AnalyzerError):
    """An exporter that the job names does not show GPUs."""


Found = Iterator[tuple[Status, str]]


def examine(
    spec: JobSpec, mode: str, export_path: Path, environ: Mapping[str, str], with_server: bool
) -> Iterator[Finding]:
    """Every check in turn; one that fails stops no other. mode: the launch mode. with_server: a server is to be there."""
    pages: list[Page] = []
    checks: list[tuple[str, Callable[[], Found]]] = [
        ("models", lambda: _models_and_inputs(spec, mode)),
        ("results", lambda: _results(export_path)),
        ("client", lambda: _client(spec)),
    ]
    if mode == "remote" and with_server:
        checks += [("server", lambda: _server(spec)), ("metrics", lambda: _metrics_page(spec, pages))]
    else:
        why = "--no-server" if mode == "remote" else f"the run starts it ({mode})"
        checks.append(("server", lambda: _skipped(why)))
    checks += [
        ("kubernetes", lambda: _kubernetes(spec, environ)),
        ("exporter", lambda: _exporters(spec, environ, pages)),
        ("gpus", lambda: _gpus(spec, mode, environ, pages)),
    ]
    if spec.annotate_job:
        checks.append(("annotations", lambda: _annotating(spec, environ)))
    for name, check in checks:
        try:
            for status, text in check():
                yield Finding(status, name, text)
        except AnalyzerError as error:
            yield from failures(name, error)


def failures(check: str, error: AnalyzerError) -> Iterator[Finding]:
    """A line a fault."""
    return (Finding("FAIL", check, str(fault), error.exit_code) for fault in error.faults)


def _skipped(why: str) -> Found:
    yield "skip", why


def _models_and_inputs(spec: JobSpec, mode: str) -> Found:
    """What of it lies here; what a remote server has is asked of it."""
    if found := [*faults(spec, mode)]:
        raise SpecError.of(found)
    if mode == "remote":
        if files := sorted({path for model in spec.models() if (path := model.input_source.path) is not None}):
            yield "ok", f"input data: {', '.join(files)}"
    else:
        yield "ok", f"model repository {spec.model_repository}, input data"


def _results(export_path: Path) -> Found:
    """Its folder is not made: that is the run's."""
    place = next(path for path in (export_path, *export_path.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        fix = "check its owner and free space; in a pod the claim's access mode and the pod's fsGroup"
        raise ExportPathError(str(place), f"is not writable ({error.strerror})", fix) from error
    yield "ok", f"{place} is writable"


def _client(spec: JobSpec) -> Found:
    check_cpus(spec.client_cpus)
    cpus = usable_cpus(spec.client_cpus)
    most = f"up to {cpus}" if spec.client_workers == "auto" else str(spec.client_workers)
    yield "ok", f"the load generator may use {cpus} CPUs; processes: {most}"
    if spec.client_workers != "auto" and spec.client_workers > cpus:
        yield "warn", f"client_workers is {spec.client_workers}: they share {cpus} CPUs"


def _server(spec: JobSpec) -> Found:
    """The load goes to one endpoint; the other may be closed."""
    tls = next((model.tls for model in spec.models() if model.tls is not None), None)
    api: WireApi = (GrpcApi if spec.client_protocol == "grpc" else HttpApi)(host_port(spec.endpoint), tls)
    try:
        for state, holds in (("live", api.is_live()), ("ready", api.is_ready())):
            if not holds:
                raise ServerError(api.endpoint, f"answers, but is no {state} Triton server", "see the server's log")
        yield (
            "ok",
            f"{spec.client_protocol} endpoint {api.endpoint}: Triton {api.metadata().get('version', '?')}, live and ready",
        )
        known = {str(model.get("name")) for model in api.index()}
    except (Refused, Unreachable) as error:
        fix = f"start it, {another_endpoint(spec.client_protocol)}; in a pod see the log of Triton's container"
        what = f"does not answer over {spec.client_protocol} ({error})"
        raise ServerError(api.endpoint, what, fix) from error
    yield from _models(api.endpoint, [model.name for model in spec.models()], known)


def _models(endpoint: str, wanted: Iterable[str], known: set[str]) -> Found:
    missing = [name for name in wanted if name not in known]
    if missing:
        has = ", ".join(sorted(known)[:20]) or "none at all"
        fix = "correct the server's model repository, or profile_models"
        raise ServerError(endpoint, f"has no model {', '.join(missing)} in its repository; it has {has}", fix)
    yield "ok", f"models in the repository: {', '.join(wanted)}"


def _metrics_page(spec: JobSpec, pages: list[Page]) -> Found:
    from model_analyzer.adapters.telemetry.triton import TritonSampler

    page = TritonSampler(spec.triton_metrics_url).sample()
    pages.append(page)
    if page.problem is not None and not page.values:
        fix = "correct triton_metrics_url, or start the server with metrics"
        raise ServerError(page.origin, page.problem, fix)
    yield "ok", f"metrics page {page.origin}"


def _kubernetes(spec: JobSpec, environ: Mapping[str, str]) -> Found:
    """Token, and the right to list the pods of the node. That there is no exporter is no fault of the API."""
    if not discovers(spec, environ):
        yield "skip", _no_discovery(spec)
        return
    from model_analyzer.adapters.kubernetes.discovery import Discovery, NoExporter

    node = environ["NODE_NAME"]
    try:
        found = Discovery(node, spec.dcgm_exporter_namespaces).find()
    except NoExporter as error:
        yield "ok", f"may list the pods on node {node}"
        yield "warn", str(error)
        return
    yield "ok", f"may list the pods on node {node}"
    for exporter in found:
        if exporter.unready is not None:
            yield "warn", f"exporter {exporter} is not ready: {exporter.unready}"
        else:
            yield "ok", f"exporter {exporter} is ready"


def _no_discovery(spec: JobSpec) -> str:
    if spec.dcgm_disable:
        return "dcgm_disable: no exporter is read"
    if spec.dcgm_exporter_url:
        return "dcgm_exporter_url names the exporter"
    return "dcgm_discovery is off" if spec.dcgm_discovery == "off" else "not in a pod (NODE_NAME is not set)"


def _exporters(spec: JobSpec, environ: Mapping[str, str], pages: list[Page]) -> Found:
    """A page that the job names must show GPUs; without one that is to be found a run goes on."""
    samplers = exporters(spec, environ, lambda _: None)
    if not samplers:
        yield "skip", "none is read"
    problems = []
    for sampler in samplers:
        page = sampler.sample()
        pages.append(page)
        if page.gpus:
            yield "ok", f"{page.origin}; GPUs: {len(page.gpus)}"
        elif discovers(spec, environ):
            yield "warn", page.problem or "shows no GPU"
        else:
            problems.append(page.problem or f"{page.origin}: shows no GPU")
    if problems:
        fix = "correct dcgm_exporter_url, or leave it out"
        raise ExporterError("dcgm_exporter_url", "; ".join(problems), fix)


def _gpus(spec: JobSpec, mode: str, environ: Mapping[str, str], pages: list[Page]) -> Found:
    if not any(page.gpus for page in pages):
        # A server that is not up yet will say.
        yield ("warn" if pages else "skip"), "no source shows a GPU: GPU columns stay empty"
        return
    chosen = select_gpus(pages, gpu_choice(spec, mode, environ))
    if chosen.gpus:
        yield "ok", f"{', '.join(chosen.gpus)} (rule: {chosen.rule})"
    for note in chosen.notes:
        yield "warn", note


def _annotating(spec: JobSpec, environ: Mapping[str, str]) -> Found:
    from model_analyzer.adapters.kubernetes.annotations import patch_job

    # Nothing is changed: the right to is asked for by a change of nothing.
    patch_job(spec.annotate_job, environ.get("POD_NAMESPACE"))({})
    yield "ok", f"Job {spec.annotate_job} may be annotated"
