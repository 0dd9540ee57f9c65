"""Each image as a docker-archive in the user's cache, named by a hash of all that goes into it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from . import base
from .context import Context, network_arguments
from .errors import ImagesError

HERE = Path(__file__).parent
REFS = {
    "base": "localhost/python-base:test",
    "dependencies": "localhost/model-analyzer-dependencies:test",
    "analyzer": "localhost/model-analyzer:test",
    "triton-cpu": "localhost/triton-cpu:test",
}
# What is asked for; `dependencies` only saves the next build their installation.
NAMES = ("base", "analyzer", "triton-cpu")
DEPENDENCIES = ("Dockerfile", "container", "pyproject.toml", "requirements.lock")
INPUTS = {
    "dependencies": DEPENDENCIES,
    "analyzer": (*DEPENDENCIES, "README.md", "LICENSE", "model_analyzer"),
    "triton-cpu": (
        *("examples/triton-cpu/Dockerfile", "examples/triton-cpu/layout.sh", "container", "requirements.lock"),
        *("examples/quickstart/build_models.py", "examples/quickstart/models_src"),
    ),
}
Say = Callable[[str], None]


def archive(name: str, say: Say = lambda _: None) -> Path:
    """The image's docker-archive; built now, where nothing that fits is there. Raises ImagesError."""
    recipe = Recipe.read(name)
    if not recipe.path.exists():
        recipe.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(recipe.path.parent):
            if not recipe.path.exists():  # another process may just have built it
                with _engine() as client:
                    _Builder(client, say).make(recipe)
    return recipe.path


@dataclass(frozen=True)
class Recipe:
    """All that an image is made of, as it was when it was read. on: what must be in the engine, in this order."""

    name: str
    context: Context
    on: tuple[Recipe, ...] = ()

    @classmethod
    def read(cls, name: str) -> Recipe:
        """Of an image of REFS."""
        if name == "base":
            return cls(name, Context.read(["tests/images/base.py"]))
        names = ("base", "dependencies") if name == "analyzer" else ("base",)
        return cls(name, Context.read(INPUTS[name]), tuple(map(cls.read, names)))

    @property
    def ref(self) -> str:
        """The image's name in an engine."""
        return REFS[self.name]

    @cached_property
    def key(self) -> str:
        """A hash of all that it is made of."""
        return self.context.hash(*(recipe.key for recipe in self.on))

    @cached_property
    def path(self) -> Path:
        """Of its docker-archive."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "model-analyzer" / "images" / f"{self.name}-{self.key}.tar"


@dataclass
class _Builder:
    """Builds what is missing, in one engine."""

    client: Any
    say: Say
    there: set[str] = field(default_factory=set)  # keys of what this engine has

    def make(self, recipe: Recipe) -> None:
        """Make the archive, and first what it stands on."""
        for other in recipe.on:
            if other.key not in self.there:
                self._load(other)
        self.say(f"building {recipe.ref}")
        if recipe.name == "base":
            base.build(self.client, recipe.ref, self.say)
        else:
            self._build(recipe)
        self._save(recipe)
        self.there.add(recipe.key)

    def _load(self, recipe: Recipe) -> None:
        if not recipe.path.exists():
            self.make(recipe)
            return
        with recipe.path.open("rb") as stream:
            self.client.images.load(stream)
        self.there.add(recipe.key)

    def _build(self, recipe: Recipe) -> None:
        said: list[str] = []
        events = self.client.api.build(
            fileobj=recipe.context.tar(),
            custom_context=True,
            dockerfile=next(path for path in recipe.context.files if path.endswith("Dockerfile")),
            target="dependencies" if recipe.name == "dependencies" else None,
            tag=recipe.ref,
            buildargs={"BASE_IMAGE": REFS["base"], "VERSION": "test", **network_arguments(os.environ)},
            cache_from=[other.ref for other in recipe.on],
            network_mode="host",
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            said += (event.get("stream") or event.get("error") or "").splitlines()
            if "error" in event:
                print("\n".join(said), file=sys.stderr)
                raise ImagesError(f"{recipe.ref}: cannot be built: {event['error']}")

    def _save(self, recipe: Recipe) -> None:
        path = recipe.path
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as fresh:
            try:
                for chunk in self.client.images.get(recipe.ref).save(named=recipe.ref):
                    fresh.write(chunk)
                Path(fresh.name).replace(path)
            except BaseException:
                Path(fresh.name).unlink()
                raise
        for old in path.parent.glob(f"{recipe.name}-{'?' * len(recipe.key)}.tar"):
            if old != path:
                old.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One builder at a time; whoever comes second finds the archives."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _engine() -> Iterator[Any]:
    """A client of a Docker engine: the one that runs here, else one of our own. Raises ImagesError."""
    if str(HERE.parent) not in sys.path:
        sys.path.insert(0, str(HERE.parent))
    from triton_container.engine import NoEngineError, docker_engine

    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(docker_engine())
        except NoEngineError as error:
            raise ImagesError(f"no Docker engine: {error}") from error
        yield engine.client
