"""`check-pod`: what `helm test` runs, in the Job's own pod and with its arguments. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_analyzer.cli import said
from model_analyzer.cli.flags import with_spec_flags
from model_analyzer.errors import AnalyzerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_analyzer.wire import Job

NoServer = Annotated[bool, typer.Option("--no-server", help="The pod has no server: do not look for it.")]


def check_pod(config_file: str | None, values: dict[str, Any], *, no_server: NoServer = False) -> None:
    """Check what a run of the job would need: claim, server, exporters, rights. Every fault is said."""
    from model_analyzer.cli.commands import load

    job = load(config_file, values)
    typer.echo(f"ok: job: {len(job.phase_ids)} phases")
    code = 0
    for name, check in _checks(job, no_server):
        try:
            for found in check():
                typer.echo(f"ok: {name}: {found}")
        except AnalyzerError as error:
            ended = said.error(error)
            code = code or ended
    if no_server:
        typer.echo("not checked: server: it is started beside the run only")
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add the command; it is the chart's, so --help does not list it."""
    app.command(hidden=True)(with_spec_flags(check_pod))


def _checks(job: Job, no_server: bool) -> Iterator[tuple[str, Callable[[], Iterator[str]]]]:
    from model_analyzer.adapters import pod_check

    spec = job.spec
    yield "results", lambda: pod_check.results(job.export_path)
    if not no_server:
        yield "server", lambda: pod_check.server(spec)
        yield "server", lambda: pod_check.metrics_page(spec)
    if not spec.dcgm_disable:
        yield "exporter", lambda: pod_check.exporters(spec)
        if spec.dcgm_discovery == "auto":
            yield "exporter", lambda: pod_check.discovery(spec)
    if spec.annotate_job:
        yield "annotations", lambda: pod_check.annotating(spec)
