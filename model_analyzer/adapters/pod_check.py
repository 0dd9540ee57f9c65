"""What a run needs, looked at without measuring: the claim, the server, the exporters, the right to annotate.

`helm test` starts the Job's own pod with it. A check yields what it found, or raises what is wrong and how to mend it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from model_analyzer.adapters.triton.wire_api import GrpcApi, HttpApi, Refused, Unreachable, WireApi
from model_analyzer.core.load import Tls
from model_analyzer.core.spec import JobSpec
from model_analyzer.core.telemetry import Page
from model_analyzer.errors import AnalyzerError, ExportPathError, ServerError


class TelemetryError(AnalyzerError):
    """An exporter that the job asks for does not show GPUs."""


def results(export_path: Path) -> Iterator[str]:
    """The export path can be written to. Its folder is not made: that is the run's. Raises ExportPathError."""
    place = next(path for path in (export_path, *export_path.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        fix = "check the claim's access mode, its free space, and fsGroup of the pod"
        raise ExportPathError(str(place), f"is not writable ({error.strerror})", fix) from error
    yield f"{place} is writable"


def server(spec: JobSpec) -> Iterator[str]:
    """The endpoints that the job uses answer, and the server knows its models. Raises ServerError."""
    tls = next((model.tls for model in spec.models() if model.tls is not None), None)
    # The load goes to the one; the other may be closed.
    api = _api(spec, tls)
    try:
        if not api.is_live():
            raise ServerError(api.endpoint, "it answers, but not as a live Triton server", "see the server's log")
        yield f"{spec.client_protocol} endpoint {api.endpoint}: Triton {api.metadata().get('version', '?')}"
        known = {str(model.get("name")) for model in api.index()}
    except (Refused, Unreachable) as error:
        fix = "start it, or correct the endpoint; see the log of the container triton"
        raise ServerError(api.endpoint, f"does not answer ({error})", fix) from error
    yield from _models(api.endpoint, [model.name for model in spec.models()], known)


def _models(endpoint: str, wanted: Iterable[str], known: set[str]) -> Iterator[str]:
    missing = [name for name in wanted if name not in known]
    if missing:
        has = ", ".join(sorted(known)[:20]) or "none at all"
        fix = "check models.repository, or the job's profile_models"
        raise ServerError(endpoint, f"has no model {', '.join(missing)} in its repository; it has {has}", fix)
    yield f"models in the repository: {', '.join(wanted)}"


def _api(spec: JobSpec, tls: Tls | None) -> WireApi:
    if spec.client_protocol == "grpc":
        return GrpcApi(spec.triton_grpc_endpoint, tls)
    return HttpApi(spec.triton_http_endpoint, tls)


def metrics_page(spec: JobSpec) -> Iterator[str]:
    """Triton's metrics page is one. Raises ServerError."""
    from model_analyzer.adapters.telemetry.triton import TritonSampler

    page = TritonSampler(spec.triton_metrics_url).sample()
    if page.problem is not None and not page.values:
        fix = "correct triton_metrics_url, or start the server with metrics"
        raise ServerError(spec.triton_metrics_url, page.problem, fix)
    yield f"metrics page {spec.triton_metrics_url}"


def exporters(spec: JobSpec) -> Iterator[str]:
    """Every DCGM exporter that the job names shows GPUs. Raises TelemetryError."""
    from model_analyzer.adapters.telemetry.dcgm import DcgmSampler

    for url in spec.dcgm_exporter_url:
        page = DcgmSampler(url).sample()
        _need_gpus(url, page)
        yield f"DCGM exporter {url}: {len(page.gpus)} GPUs"


def discovery(spec: JobSpec) -> Iterator[str]:
    """The DCGM exporter of this node is found, and shows GPUs. Raises TelemetryError, its text the reason."""
    from model_analyzer.adapters.kubernetes.discovery import Discovery
    from model_analyzer.adapters.telemetry.discovered import DiscoveredSampler

    node = os.environ.get("NODE_NAME", "")
    if not node:
        yield "DCGM discovery: does nothing outside a pod (NODE_NAME is not set)"
        return
    told: list[str] = []
    pod, namespace = os.environ.get("POD_NAME", ""), os.environ.get("POD_NAMESPACE", "")
    found = Discovery(node, spec.dcgm_exporter_namespaces)
    page = DiscoveredSampler(found, pod, namespace, told.append).sample()
    _need_gpus("DCGM discovery", page)
    yield told[-1]


def _need_gpus(where: str, page: Page) -> None:
    if not page.gpus:
        fix = "mend that, or do without: dcgm.discovery=off, and no dcgm.urls"
        raise TelemetryError(where, page.problem or "shows no GPU", fix)


def annotating(spec: JobSpec) -> Iterator[str]:
    """The run's Job may be annotated. Raises KubernetesError."""
    from model_analyzer.adapters.kubernetes.annotations import patch_job

    # Nothing is changed: the right to is asked for by a change of nothing.
    patch_job(spec.annotate_job, os.environ.get("POD_NAMESPACE"))({})
    yield f"Job {spec.annotate_job} may be annotated"
