"""`doctor`: what a run would need, looked at from here. `helm test` starts the Job's own pod with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_analyzer.adapters import termination
from model_analyzer.cli import said
from model_analyzer.cli.flags import with_spec_flags
from model_analyzer.errors import AnalyzerError

if TYPE_CHECKING:
    from model_analyzer.adapters.doctor import Finding

NoServer = Annotated[bool, typer.Option("--no-server", help="remote: do not look for the server.")]


def doctor(config_file: str | None, values: dict[str, Any], *, no_server: NoServer = False) -> None:
    """Check what a run needs from where it would run, a line a check; measure nothing.

    ok; warn: a run goes on without it; skip: not looked at; FAIL: a run would fail. The exit code is the first FAIL's.
    """
    failed = []
    for finding in _findings(config_file, values, no_server):
        said.check(finding.status, finding.check, finding.text)
        if finding.status == "FAIL":
            failed.append(finding)
    if failed:
        termination.leave(f"error: {finding.text}" for finding in failed)
        raise typer.Exit(failed[0].exit_code)


def _findings(config_file: str | None, values: dict[str, Any], no_server: bool) -> Iterator[Finding]:
    from model_analyzer.adapters.doctor import Finding, examine, failures
    from model_analyzer.cli.commands import load

    try:
        job = load(config_file, values)
    except AnalyzerError as error:
        yield from failures("job", error)
        return
    yield Finding("ok", "job", f"{len(job.phase_ids)} phases, {job.mode} Triton")
    yield from examine(job.spec, job.mode, job.export_path, os.environ, not no_server)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(with_spec_flags(doctor))
