"""`fetch`: from a cluster to a folder here, in one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_analyzer.cli import said
from model_analyzer.errors import PHASES_FAILED, AnalyzerError

if TYPE_CHECKING:
    from model_analyzer.adapters.kubernetes.fetch import Fetched

Name = Annotated[str, typer.Option("--release", help="Name of the release.", metavar="NAME")]
Output = Annotated[str, typer.Option("-o", "--output", help="Folder for the results.", metavar="FOLDER")]
Namespace = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Its namespace, if not the context's.", show_default=False)
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.", show_default=False)]
Claim = Annotated[
    str | None, typer.Option("--claim", help="PVC of the results, if not the one of its Job.", show_default=False)
]
In = Annotated[
    str | None, typer.Option("--path", help="Folder in the pod, if not the one of its Job.", show_default=False)
]
Image = Annotated[
    str | None, typer.Option("--image", help="Image of the reader pod, if not the Job's; python3 is all it needs.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the Job is complete or failed.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", help="Seconds to wait for the Job (for ever) and for the reader pod (180).", min=1),
]
Keep = Annotated[
    bool, typer.Option("--keep-pod", help="Leave the reader pod for an hour, to look around in the claim.")
]
Force = Annotated[bool, typer.Option("--force", help="Put the results over whatever the folder holds.")]

# Below what was fetched: the tables of shards, where the folder itself has those of a run before.
MERGED = "merged"


def fetch(
    release: Name,
    output: Output,
    namespace: Namespace = None,
    context: Context = None,
    claim: Claim = None,
    path: In = None,
    image: Image = None,
    wait: Wait = False,
    timeout: Timeout = None,
    keep_pod: Keep = False,
    force: Force = False,
) -> None:
    """Copy the results of a release in a cluster into a folder here.

    Exit code of the analyzer (else 4) where --wait waited for a Job that failed.
    """
    from model_analyzer.adapters.kubernetes.fetch import Wanted
    from model_analyzer.adapters.kubernetes.fetch import fetch as fetch_results

    folder = Path(output)
    wanted = Wanted(release, folder, namespace, context, claim, path, image, wait, timeout, keep_pod, force)
    fetched = fetch_results(wanted, _say)
    copied = fetched.copied
    for name in copied.left_out:
        said.warning(f"left out: {name}")
    typer.echo(f"{len(copied.files)} files, {copied.size / 1e6:.1f} MB, of release {release} are in {folder}:")
    for name in copied.files:
        typer.echo(f"  {name}")
    for line in _rows(folder):
        typer.echo(line)
    _end(fetched, wait)


def _end(fetched: Fetched, waited: bool) -> None:
    if fetched.state == "failed":
        said.warning(f"the Job failed: {fetched.failure}")
        if waited:
            raise typer.Exit(fetched.exit_code or PHASES_FAILED)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _rows(folder: Path) -> list[str]:
    """What is measured, by what was fetched; shards are made one set of tables."""
    from model_analyzer import __version__
    from model_analyzer.adapters.clock import SystemClock
    from model_analyzer.adapters.store import FILENAME, stores_of
    from model_analyzer.adapters.stored import merge_stores, own_run, read_stored

    stores = stores_of(folder)
    lines = []
    try:
        # A release that was upgraded from one pod to shards, or back, has both; the last one asked for counts.
        alone = own_run(folder)
        shards = [at for store in stores if store != folder and (at := own_run(store))]
        if shards and (alone is None or alone < max(shards)):
            now = SystemClock().utc().isoformat(timespec="seconds")
            out = folder if alone is None else folder / MERGED
            stored, warnings = merge_stores([folder], out, now, __version__)
            for warning in warnings:
                said.warning(warning)
            lines.append(f"shards made one set of tables: {out / stored.layout.filename_inference}")
            if alone is not None:
                lines.append(f"(the tables in {folder} itself are of a run before, in one pod)")
        elif stores:
            stored = read_stored(folder)
        else:
            return [f"no store of a run ({FILENAME}) among them"]
    except AnalyzerError as error:
        # The files are here all the same.
        said.warning(error)
        return lines
    counts = ", ".join(f"{count} {status}" for status, count in sorted(stored.statuses().items()))
    return [
        *lines,
        f"{len(stored.measurements)} rows of {len(stored.phase_ids)} phases" + (f": {counts}" if counts else ""),
    ]
