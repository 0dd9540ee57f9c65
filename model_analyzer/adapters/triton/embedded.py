"""The Triton in the nvidia-pytriton wheel: its server, its libraries, its Python backend for this interpreter."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from model_analyzer.adapters.triton.local import Installation
from model_analyzer.errors import ServerError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBPYTHON = f"libpython{PYTHON}.so.1.0"
STUB = "triton_python_backend_stub"


def find_embedded() -> Installation:
    """The wheel's server, made ready for this interpreter. Raises ServerError saying which part is missing."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        what = "the embedded Triton is not installed"
        fix = (
            "pip install 'model-analyzer[demo]' (Linux on x86_64), or choose triton_launch_mode remote, local or docker"
        )
        raise ServerError("nvidia-pytriton", what, fix)
    package = Path(next(iter(spec.submodule_search_locations)))
    root = package / "tritonserver"
    stub = root / "python_backend_stubs" / PYTHON / STUB
    if not stub.exists():
        have = ", ".join(sorted(path.name for path in stub.parent.parent.glob("*"))) or "none"
        what = f"the embedded Triton has no Python backend for Python {PYTHON} (it has {have})"
        raise ServerError("nvidia-pytriton", what, "use a virtual environment of one of these versions")
    libraries = [package.parent / "nvidia_pytriton.libs", *_libpython_directory()]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return Installation(
        name="embedded Triton",
        binary=root / "bin" / "tritonserver",
        environment={
            "LD_LIBRARY_PATH": ":".join([*map(str, libraries), *([inherited] if inherited else [])]),
            # The stub takes the packages of the `python3` that it finds first.
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        },
        flags={"backend-directory": str(_backend_directory(root / "backends" / "python", stub))},
    )


def _libpython_directory() -> Iterator[Path]:
    """The directory of this interpreter's shared library, where the loader does not look by itself.

    Raises ServerError where there is no such library: the stub is linked to it.
    """
    own = [sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"]
    for directory in [Path(each) for each in own if each]:
        if (directory / LIBPYTHON).exists():
            yield directory
            return
    if not _loader_finds(LIBPYTHON):
        what = f"{LIBPYTHON}, which Triton's Python backend needs, is not on this machine"
        fix = f"run `apt-get install libpython{PYTHON}`, or use a Python that was built with --enable-shared"
        raise ServerError(sys.executable, what, fix)


def _loader_finds(library: str) -> bool:
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    known = [Path(f"/usr/lib/{multiarch}"), Path(f"/lib/{multiarch}"), Path("/usr/lib64"), Path("/usr/lib")]
    known += [Path(each) for each in os.environ.get("LD_LIBRARY_PATH", "").split(":") if each]
    if any((directory / library).exists() for directory in known):
        return True
    try:
        cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return library in cache


def _backend_directory(backend: Path, stub: Path) -> Path:
    """A backend directory with the Python backend and the stub beside it, as links into the wheel.

    It is kept, one for each wheel and Python version: a run that is killed then leaves nothing behind.
    """
    parts = {path.name: path for path in (*backend.iterdir(), stub) if path.is_file()}
    key = hashlib.sha256(str(stub).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "model-analyzer" / f"backends-{key}"
    try:
        _link(directory / "python", parts)
    except OSError:  # a read-only home
        directory = Path(tempfile.mkdtemp(prefix="model-analyzer-backends-"))
        _link(directory / "python", parts)
    return directory


def _link(directory: Path, parts: dict[str, Path]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, target in parts.items():
        link = directory / name
        if link.is_symlink() and link.readlink() == target:
            continue
        # By rename, so that a server that starts at the same time never misses a part.
        fresh = link.with_name(f".{name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)
