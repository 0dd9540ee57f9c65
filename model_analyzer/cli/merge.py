"""`merge`: the results of several runs, or of the shards of one, as one set of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model_analyzer import __version__
from model_analyzer.cli import commands, said
from model_analyzer.errors import PHASES_FAILED

Folders = Annotated[
    list[str],
    typer.Argument(help="Export paths of runs: shards, folders that contain shards, or merged ones.", metavar="FOLDER"),
]  # fmt: skip
Out = Annotated[str, typer.Option("-o", "--output-path", help="Folder for the merged results.", metavar="FOLDER")]


def merge(folders: Folders, output_path: Out) -> None:
    """Make one set of tables of several runs, and compare GPU types. Exit code 4 while phases are missing or failed."""
    from model_analyzer.adapters.clock import SystemClock
    from model_analyzer.adapters.comparison import FILENAME, show
    from model_analyzer.adapters.stored import merge_stores
    from model_analyzer.core.ending import ending

    now = SystemClock().utc().isoformat(timespec="seconds")
    out = Path(output_path)
    stored, warnings = merge_stores([Path(folder) for folder in folders], out, now, __version__)
    for warning in warnings:
        said.warning(warning)
    show(commands.console(), stored.comparison())
    layout = stored.layout
    for name in (layout.filename_inference, layout.filename_gpu, layout.filename_server, FILENAME):
        typer.echo(str(out / name))
    failed = stored.statuses().get("failed", 0)
    typer.echo(
        f"{len(stored.measurements)} rows of {len(stored.phase_ids)} phases; failed: {failed}, missing: {stored.missing}"
    )
    if stored.missing:
        raise typer.Exit(PHASES_FAILED)
    raise typer.Exit(ending(stored.measurements, layout.constraints)[0])
