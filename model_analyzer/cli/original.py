"""The command lines of the original Model Analyzer (2020), at the root without a subcommand."""

from __future__ import annotations

import re
import tempfile
from typing import Annotated, Any

import typer

from model_analyzer.cli.flags import split
from model_analyzer.errors import SpecError

NAME = "original"
FLAG_NAMES = {
    "profile_models": "--model-names",
    "model_repository": "--model-folder",
    "batch_sizes": "--batch",
    "concurrency": "--concurrency",
    "export_path": "--export-path",
    "triton_docker_image": "--triton-version",
}
IMAGE = "nvcr.io/nvidia/tritonserver:{version}-py3"
# Source: the tag of an image reference, github.com/distribution/reference.
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)

Models = Annotated[
    list[str] | None,
    typer.Option("-m", "--model-names", "--models", help="Models, by comma or repeated.", metavar="LIST"),
]
Folder = Annotated[str | None, typer.Option("-f", "--model-folder", help="Folder of the models.")]
Batch = Annotated[
    list[str] | None, typer.Option("-b", "--batch", help="Batch sizes, by comma or repeated.", metavar="LIST")
]
Concurrency = Annotated[
    list[str] | None, typer.Option("-c", "--concurrency", help="Concurrency values.", metavar="LIST")
]
Export = Annotated[bool, typer.Option("--export", help="Write the tables; else they are printed only.")]
ExportPath = Annotated[str | None, typer.Option("-e", "--export-path", help="Folder for the tables.")]
Version = Annotated[
    str | None, typer.Option("--triton-version", help="Image tag, such as 24.10: Triton in a container.")
]


def register(app: typer.Typer) -> None:
    """Add the hidden command that the root's flags lead to."""
    app.command(NAME, hidden=True)(original)


def original(
    models: Models = None,
    model_folder: Folder = None,
    batch: Batch = None,
    concurrency: Concurrency = None,
    export: Export = False,
    export_path: ExportPath = None,
    triton_version: Version = None,
) -> None:
    """Measure models: the original tool's flags, without a subcommand. `model-analyzer profile` does more."""
    from model_analyzer.cli import commands

    if not models and model_folder is not None and model_folder.endswith((".yaml", ".yml")):
        fix = f"write model-analyzer profile -f {model_folder}"
        raise SpecError("command line", "a job spec without a command", fix)
    if not models or model_folder is None:
        raise SpecError("command line", "-m/--model-names and --model-folder are needed", "see model-analyzer --help")
    if export and export_path is None:
        raise SpecError("command line", "--export without a folder", "give -e/--export-path, too")
    values: dict[str, Any] = {"profile_models": split(models), "model_repository": model_folder}
    if batch:
        values["batch_sizes"] = split(batch)
    if concurrency:
        values["concurrency"] = split(concurrency)
    values["triton_launch_mode"] = None if triton_version is None else "docker"
    if triton_version is not None:
        values["triton_docker_image"] = _image(triton_version)
    if export:
        commands.run(commands.load(None, {**values, "export_path": export_path}, FLAG_NAMES))
    else:
        # Printed only: what a run needs to keep is gone with it.
        with tempfile.TemporaryDirectory(prefix="model-analyzer-") as scratch:
            commands.run(commands.load(None, {**values, "export_path": scratch}, FLAG_NAMES), kept=False)


def _image(version: str) -> str:
    """The image of a version such as 24.10; of the whole tag, 24.10-py3, too. Raises SpecError."""
    if not TAG.fullmatch(version):
        fix = "give a version such as 24.10; another image goes into triton_docker_image of a job spec"
        raise SpecError("--triton-version", f"{version!r} is not a version of Triton's image", fix)
    return IMAGE.format(version=version.removesuffix("-py3"))
