"""Our image as a user runs it on a Docker engine: the original's standalone form, beside a CPU Triton of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import read_csv
from images.archives import REFS
from triton_container.engine import Engine
from triton_container.image import REPOSITORY

from model_analyzer import __version__
from model_analyzer.adapters.triton.docker import LABEL

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]  # a cold build of the images is part of the first test
ROOT = Path(__file__).parents[2]
SOCKET = "/var/run/docker.sock"
USER = 1000
OTHER = 1234
# Each worker removes its own when it has done its part.
VERSION = "cpu-standalone" + os.environ.get("PYTEST_XDIST_WORKER", "")


@pytest.fixture(scope="module")
def images(engine: Engine) -> Iterator[None]:
    """Both images and their base in the engine, the CPU Triton by the name that --triton-version asks for."""
    if not engine.address.startswith("unix://"):
        pytest.skip("the engine has no socket to mount")
    # A process of its own: it uses this engine, and does not start a second one.
    build = [sys.executable, "-m", "tests.images", "base", "analyzer", "triton-cpu"]
    environment = {**os.environ, "DOCKER_HOST": engine.address}
    built = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800, check=False)
    if built.returncode != 0:
        pytest.skip(f"the images cannot be built: {built.stderr.strip()}")
    for archive in built.stdout.split():
        with Path(archive).open("rb") as stream:
            engine.client.images.load(stream)
    engine.client.images.get(REFS["triton-cpu"]).tag(REPOSITORY, f"{VERSION}-py3")
    yield
    engine.client.images.remove(f"{REPOSITORY}:{VERSION}-py3")


class Standalone:
    """`docker run` of our image; what goes into the command line can be replaced."""

    def __init__(self, engine: Engine, folder: Path, models: Path) -> None:
        self.engine = engine
        self.models, self.export = folder / "models", folder / "export"
        shutil.copytree(models, self.models)
        self.models.chmod(0o755)
        self.export.mkdir()
        os.chown(self.export, USER, USER)
        self.socket = engine.address.removeprefix("unix://")
        self.group = Path(self.socket).stat().st_gid

    def mounts(self) -> dict[str, str]:
        """Place on the host, by place in the container."""
        return {SOCKET: self.socket, str(self.models): str(self.models), "/results": str(self.export)}

    def arguments(self) -> list[str]:
        return [
            *("--batch", "1,2", "--concurrency", "1", "--model-names", "add_sub", "--triton-version", VERSION),
            *("--model-folder", str(self.models), "--export", "--export-path", "/results/"),
        ]

    def run(self, *arguments: str, mounts: dict[str, str] | None = None, **given: Any) -> tuple[int, str]:
        """Exit code and output."""
        volumes = [f"{host}:{place}" for place, host in (self.mounts() if mounts is None else mounts).items()]
        container = self.engine.client.containers.create(
            REFS["analyzer"],
            list(arguments or self.arguments()),
            **{
                "volumes": volumes,
                "network_mode": "host",
                "group_add": [self.group],
                "read_only": True,
                "tmpfs": {"/tmp": ""},
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges"],
                **given,
            },
        )
        try:
            container.start()
            code = container.wait(timeout=240)["StatusCode"]
            return code, container.logs().decode()
        finally:
            container.remove(force=True)


@pytest.fixture
def standalone(engine: Engine, images: None, tmp_path: Path, model_repository: Path) -> Standalone:
    if os.geteuid() != 0:
        pytest.skip("only root can give folders away")
    # Other users have to get through to it.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    (tmp_path / "demo").mkdir()
    shutil.copytree(model_repository / "add_sub", tmp_path / "demo" / "add_sub")
    return Standalone(engine, tmp_path, tmp_path / "demo")


def test_the_original_command_line_measures_from_our_container(standalone: Standalone, engine: Engine) -> None:
    code, output = standalone.run()
    assert code == 0, output
    assert f"in {REPOSITORY}:{VERSION}-py3" in output
    rows = read_csv(standalone.export / "metrics-model-inference.csv")
    assert [(row["Model"], row["Batch"], row["Concurrency"]) for row in rows] == [
        ("add_sub", "1", "1"),
        ("add_sub", "2", "1"),
    ]
    assert all(float(row["Throughput (infer/sec)"]) > 0 for row in rows)
    assert {path.stat().st_uid for path in standalone.export.iterdir()} == {USER}
    status = standalone.export.stat()
    ours = {"label": f"{LABEL}={status.st_dev}-{status.st_ino}"}
    assert engine.client.containers.list(all=True, filters=ours) == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (
            lambda run: {"group_add": []},
            3,
            "Permission denied; give this container the socket's group: add --group-add",
        ),
        (lambda run: {"mounts": {k: v for k, v in run.mounts().items() if k != SOCKET}}, 3, f"-v {SOCKET}:{SOCKET}"),
        (
            lambda run: {"mounts": {k: v for k, v in run.mounts().items() if k != str(run.models)}},
            2,
            "mount it at the path that it has on the host: add -v",
        ),
        (lambda run: {"user": f"{OTHER}:{OTHER}"}, 6, f"add --user {USER}:{USER} to docker run"),
        (
            lambda run: {
                "user": f"{OTHER}:{OTHER}",
                "mounts": {k: v for k, v in run.mounts().items() if k != "/results"},
            },
            6,
            "add -v EXPORT:/results",
        ),
    ],
    ids=["group", "socket", "models", "owner", "export"],
)
def test_what_is_missing_from_docker_run_is_said(
    standalone: Standalone, change: Callable[[Standalone], dict[str, Any]], code: int, words: str
) -> None:
    if standalone.group in (USER, OTHER):
        pytest.skip("the socket's group is the container's user's own")
    given = change(standalone)
    if words.startswith("add -v EXPORT"):
        given["read_only"] = False  # else it is the file system that says no
    found, output = standalone.run(**given)
    assert found == code, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert words in error


def test_a_folder_that_docker_made_is_root_s_and_that_is_said(standalone: Standalone, tmp_path: Path) -> None:
    code, output = standalone.run(mounts={**standalone.mounts(), "/results": str(tmp_path / "not-there")})
    assert code == 6, output
    assert f"sudo chown {USER}:{USER} EXPORT" in output


def test_the_image_has_no_tools_and_small_layers_and_labels(standalone: Standalone, engine: Engine) -> None:
    image = engine.client.images.get(REFS["analyzer"])
    base = engine.client.images.get(REFS["base"])
    assert image.attrs["Size"] - base.attrs["Size"] < 130e6
    labels = image.attrs["Config"]["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == "test"
    assert image.attrs["Config"]["User"] == f"{USER}:{USER}"
    tools = "for tool in gcc cc make pip pip3; do command -v $tool; done; python -m pip --version"
    code, output = standalone.run("-c", tools, entrypoint="sh", mounts={})
    assert code != 0
    assert output.splitlines()[-1].endswith("No module named pip")
    assert len(output.splitlines()) == 1, output


def test_every_client_that_is_used_imports_without_a_writable_file_system(standalone: Standalone) -> None:
    modules = (
        "tritonclient.http, tritonclient.grpc, kubernetes.client, kubernetes.config, kubernetes.watch, "
        "kubernetes.stream, docker, prometheus_client.parser, rich.traceback, rich.syntax, yaml, psutil"
    )
    code = f"import {modules}; import numpy; print(numpy.linalg.inv(numpy.eye(64) * 2).trace())"
    status, output = standalone.run("-c", code, entrypoint="python", mounts={})
    assert (status, output.strip()) == (0, "32.0")


def test_the_version_is_the_package_s(standalone: Standalone) -> None:
    assert standalone.run("--version", mounts={}) == (0, f"model-analyzer {__version__}\n")


def test_the_cpu_triton_serves_the_demo_s_models(standalone: Standalone, engine: Engine) -> None:
    server = engine.client.containers.create(
        REFS["triton-cpu"],
        ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", "--load-model=*"],
        read_only=True, tmpfs={"/tmp": ""}, shm_size="256m", cap_drop=["ALL"], network_mode="none",
    )  # fmt: skip
    try:
        server.start()
        deadline = time.monotonic() + 240
        loaded = [f"successfully loaded '{model}'" for model in ("add_sub", "magika")]
        while not all(words in server.logs().decode() for words in loaded):
            server.reload()
            assert server.status == "running" and time.monotonic() < deadline, server.logs().decode()  # noqa: PT018
            time.sleep(0.2)
    finally:
        server.remove(force=True)
