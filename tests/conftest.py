"""Real servers and models for the tests that need them, and how those by hypothesis run."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from triton_container import image
from triton_container.engine import Engine, NoEngineError, docker_engine

from model_analyzer.adapters.triton.embedded import find_embedded
from model_analyzer.adapters.triton.launch import Launch
from model_analyzer.adapters.triton.local import LocalServer
from model_analyzer.core.variant import ModelInfo, ServerInfo, ServerSettings, Variant
from model_analyzer.errors import ServerError

ROOT = Path(__file__).parent.parent

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@dataclass(frozen=True)
class RunningServer:
    """The embedded server of the session. Whoever loads a model on it unloads it again."""

    server: LocalServer
    info: ServerInfo

    @contextlib.contextmanager
    def loaded(self, name: str) -> Iterator[ModelInfo]:
        """A model with the config that it has in the repository."""
        variant = Variant(name, f"{name}_config_default")
        try:
            yield self.server.load(variant)
        finally:
            self.server.unload(variant)


@pytest.fixture
def signals() -> Iterator[None]:
    """An interrupted process keeps ignoring signals; this one goes on."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's models and those of tests/models, in one repository. Read it, do not change it."""
    repository = tmp_path_factory.mktemp("repository") / "models"
    build = [sys.executable, str(ROOT / "examples" / "quickstart" / "build_models.py"), str(repository)]
    built = subprocess.run(build, capture_output=True, text=True, check=False, timeout=240)
    if built.returncode != 0:
        pytest.skip(f"the demo repository cannot be built: {built.stderr.strip()}")
    shutil.copytree(
        ROOT / "tests" / "models", repository, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    return repository


@pytest.fixture(scope="session")
def embedded_server(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real Triton with `model_repository`, nothing loaded."""
    try:
        find_embedded()
    except ServerError as error:
        pytest.skip(f"no embedded Triton: {error}")
    log = tmp_path_factory.mktemp("server") / "triton.log"
    server = LocalServer(Launch(model_repository, log, monitoring_interval_s=0.2), find_embedded)
    # Strict readiness remembers a failed load for ever, and each later run would wait for the server to get ready.
    info = server.start(ServerSettings((("strict-readiness", "false"),)))
    yield RunningServer(server, info)
    server.stop()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A real Docker engine: the one that runs here, else one of our own (root only)."""
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(docker_engine())
        except NoEngineError as error:
            pytest.skip(f"no Docker engine: {error}")
        yield started


@pytest.fixture(scope="session")
def triton_version(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A CPU Triton in the engine, as nvcr.io/nvidia/tritonserver:<this version>-py3; made of what is installed here."""
    with contextlib.ExitStack() as stack:
        try:
            scratch = tmp_path_factory.mktemp("image") / "root.tar"
            version = stack.enter_context(image.in_engine(engine.client, scratch))
        except ServerError as error:
            pytest.skip(f"no embedded Triton to make an image of: {error}")
        yield version
