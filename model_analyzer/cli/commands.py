"""The commands on a job spec or a store. Heavy imports happen when a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_analyzer.cli import said
from model_analyzer.cli.flags import FLAG_NAMES, with_spec_flags
from model_analyzer.errors import PHASES_FAILED, SpecError

if TYPE_CHECKING:
    from model_analyzer.job import Job

_LEAN = {"OPENBLAS_NUM_THREADS": "1", "PYDANTIC_DISABLE_PLUGINS": "1"}
ExportPath = Annotated[str, typer.Option("-e", "--export-path", help="Folder of the run's results.", metavar="FOLDER")]


def register(app: typer.Typer) -> None:
    """Add the commands, in the order of --help."""
    for on_job in (profile, plan, validate):
        app.command()(with_spec_flags(on_job))
    from model_analyzer.cli.merge import merge

    for on_store in (status, tables, merge, schema):
        app.command()(on_store)
    from model_analyzer.cli.fetch import fetch

    app.command()(fetch)


def load(config_file: str | None, values: dict[str, Any], flag_names: Mapping[str, str] = FLAG_NAMES) -> Job:
    """The job, its warnings printed: before its faults where it has both. Raises SpecError.

    flag_names: key -> how the user spells the flag.
    """
    try:
        with lean_libraries():
            from model_analyzer.job import load_job

            job = load_job(Path(config_file) if config_file is not None else None, values, flag_names)
    except SpecError as error:
        for warning in error.warnings:
            said.warning(warning)
        raise
    if job.spec.log_format == "json":
        said.choose(as_json=True)
    for warning in job.warnings:
        said.warning(warning)
    return job


@contextmanager
def lean_libraries() -> Iterator[None]:
    """In it numpy is imported without the threads of its OpenBLAS, and pydantic builds its models without a look for plugins.

    OpenBLAS starts one a CPU and lets them spin: we multiply no matrices. Plugins are looked for in the metadata of every package
    that is installed. Both are told by variables, which a Triton that we start shall not inherit.
    """
    given = {name: os.environ.get(name) for name in _LEAN}
    os.environ.update(_LEAN)
    try:
        yield
    finally:
        for name, value in given.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def profile(config_file: str | None, values: dict[str, Any]) -> None:
    """Measure what is not measured yet, write the tables."""
    run(load(config_file, values))


def run(job: Job, kept: bool = True) -> None:
    """Measure a job; ends the process with its exit code. kept: whether its export path outlives it."""
    from rich.console import Console

    from model_analyzer.wire import profile as measure

    raise typer.Exit(measure(job, console(), live=Console(stderr=True).is_terminal, kept=kept))


def console() -> Any:
    """A console for tables: as wide as they need where nobody looks at it on a terminal."""
    from rich.console import Console

    # Names, paths and a server's words stand as they are: `[/models/a]` is no markup, `:on:` no emoji.
    return Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False)


def plan(config_file: str | None, values: dict[str, Any]) -> None:
    """Print the phases and about how long they take; touch nothing.

    The time is a guess from the stop rule and from what starts, loads and warm-ups took elsewhere; a run corrects it as it goes.
    """
    job = load(config_file, values)
    phases = [len(of) for of in job.shard_ids()]
    shard_of = {phase_id: f"  shard {n}" for n, of in enumerate(job.shard_ids()) for phase_id in of if len(phases) > 1}
    counts = job.request_counts()
    for group in job.whole:
        for phase in group.phases:
            terms = phase.terms(counts.get(group.variant.model))
            typer.echo(f"{phase.id}  {phase}{terms}{shard_of.get(phase.id, '')}")
    in_shards = f" in {len(phases)} shards" if len(phases) > 1 else ""
    repeated = f", {job.spec.repeats} repeats of each" if job.spec.repeats > 1 else ""
    what = f"{sum(phases)} phases of {len(job.whole)} variants{repeated}{in_shards}, {job.mode} Triton"
    typer.echo(f"{what}, about {_how_long(job)}")


def _how_long(job: Job) -> str:
    """The time that a job takes, and how far it is known."""
    likely, (least, most) = _time(job.estimate_s()), map(_time, job.bounds_s())
    if unknown := job.unknown():
        return f"{likely} by the stop rule alone; not known before the run: {', '.join(unknown)}"
    return likely if least == most else f"{likely} ({least} to {most})"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def validate(config_file: str | None, values: dict[str, Any]) -> None:
    """Check a job spec, and the models and input data on this host that it names; print every fault, or `ok`."""
    from model_analyzer.adapters.triton.beforehand import faults

    job = load(config_file, values)
    if found := [*faults(job.spec, job.mode)]:
        raise SpecError.of(found)
    typer.echo(f"ok: {sum(len(group.phases) for group in job.whole)} phases")


def status(export_path: ExportPath = ".") -> None:
    """Say what the store of a run holds. Exit code 4 while phases are missing or failed."""
    from model_analyzer.adapters.stored import read_stored

    stored = read_stored(Path(export_path))
    missing, statuses = stored.missing, stored.statuses()
    typer.echo(f"run of {stored.at}: {len(stored.phase_ids)} phases")
    for name, count in sorted(statuses.items()):
        typer.echo(f"  {name}: {count}")
    typer.echo(f"  not measured yet: {missing}" + (f", {stored.unfinished} of them begun" if stored.unfinished else ""))
    typer.echo(f"  server-only baseline: {'measured' if stored.baselines else 'not measured yet'}")
    if missing or statuses.get("failed"):
        raise typer.Exit(PHASES_FAILED)


def tables(export_path: ExportPath = ".") -> None:
    """Make the CSV files again from the store, and print the summary."""
    from model_analyzer.adapters import comparison
    from model_analyzer.adapters.stored import rebuild_tables
    from model_analyzer.adapters.tables import summary

    stored = rebuild_tables(Path(export_path))
    if stored.gpu_types is None:
        summary(console(), stored.measurements, stored.layout)
    else:
        comparison.show(console(), stored.comparison())


def schema() -> None:
    """Print the JSON schema of the job spec."""
    from model_analyzer.adapters.reference import render_schema

    typer.echo(render_schema(), nl=False)
