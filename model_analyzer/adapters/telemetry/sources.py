"""Which exporters a job reads, and what is known of its GPUs before a source is read: from its spec and environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model_analyzer.adapters.telemetry.dcgm import DcgmSampler
from model_analyzer.adapters.telemetry.here import is_here
from model_analyzer.core.gpus import GpuChoice, Visible
from model_analyzer.core.spec import JobSpec, pairs
from model_analyzer.ports import Sampler


def discovers(spec: JobSpec, environ: Mapping[str, str]) -> bool:
    """Whether the exporter of the own node is to be found: in a pod that knows its node, where none is named."""
    asked = spec.dcgm_discovery == "auto" and not spec.dcgm_disable and not spec.dcgm_exporter_url
    return asked and bool(environ.get("NODE_NAME"))


def exporters(spec: JobSpec, environ: Mapping[str, str], say: Callable[[str], None]) -> list[Sampler]:
    """Samplers of the DCGM exporters: those named, or that of the own node. say: told what is found."""
    pod, namespace = environ.get("POD_NAME", ""), environ.get("POD_NAMESPACE", "")
    if not discovers(spec, environ):
        return [] if spec.dcgm_disable else [DcgmSampler(url, pod, namespace) for url in spec.dcgm_exporter_url]
    from model_analyzer.adapters.kubernetes.discovery import Discovery
    from model_analyzer.adapters.telemetry.discovered import DiscoveredSampler

    discovery = Discovery(environ["NODE_NAME"], spec.dcgm_exporter_namespaces)
    return [DiscoveredSampler(discovery, pod, namespace, say)]


def gpu_choice(spec: JobSpec, mode: str, environ: Mapping[str, str]) -> GpuChoice:
    """For `select_gpus`. mode: the launch mode."""
    # A process of ours has our environment, and the job's; a container that we start has other devices than we have.
    ours = mode in ("local", "embedded")
    environment = {**environ, **dict(pairs(spec.triton_server_environment) if ours else ())}
    return GpuChoice(
        wanted=wanted_gpus(spec),
        pod=environ.get("POD_NAME", ""),
        namespace=environ.get("POD_NAMESPACE", ""),
        container=environ.get("TRITON_CONTAINER", ""),
        visible=Visible(environment.get("CUDA_VISIBLE_DEVICES"), environment.get("NVIDIA_VISIBLE_DEVICES"), ours),
        elsewhere=mode == "remote" and not is_here(spec.endpoint),
        own_node=discovers(spec, environ),
    )


def wanted_gpus(spec: JobSpec) -> tuple[str, ...] | None:
    """UUIDs or indices; None: all that are ours."""
    return None if spec.gpus == ("all",) else spec.gpus
