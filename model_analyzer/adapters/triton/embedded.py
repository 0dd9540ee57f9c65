"""The Triton in the nvidia-pytriton wheel: its server, its libraries, its Python backend for this interpreter."""

from __future__ import annotations

import filecmp
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
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
    libraries = package.parent / "nvidia_pytriton.libs"
    libpython = _libpython()
    backends = _backend_directory(root / "backends" / "python", stub, libraries, libpython)
    path = [backends / "lib", libraries, libpython.parent]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return Installation(
        name="embedded Triton",
        binary=root / "bin" / "tritonserver",
        environment={
            "LD_LIBRARY_PATH": ":".join([*map(str, path), *([inherited] if inherited else [])]),
            # The stub takes the packages of the `python3` that it finds first.
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        },
        flags={"backend-directory": str(backends)},
    )


def _libpython() -> Path:
    """This interpreter's shared library. Raises ServerError where there is none: the stub is linked to it."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    places = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"]
    places += [f"/usr/lib/{multiarch}", f"/lib/{multiarch}", "/usr/lib64", "/usr/lib"]
    places += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for library in [Path(place) / LIBPYTHON for place in places if place]:
        if library.exists():
            return library
    if (known := _known_to_the_loader(LIBPYTHON)) is not None:
        return known
    what = f"{LIBPYTHON}, which Triton's Python backend needs, is not on this machine"
    fix = f"run `apt-get install libpython{PYTHON}`, or use a Python that was built with --enable-shared"
    raise ServerError(sys.executable, what, fix)


def _known_to_the_loader(library: str) -> Path | None:
    try:
        cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    line = next((line for line in cache.splitlines() if line.strip().startswith(f"{library} ")), None)
    return Path(line.rpartition("=> ")[2]) if line else None


def _backend_directory(backend: Path, stub: Path, libraries: Path, libpython: Path) -> Path:
    """A backend directory with the Python backend and the stub beside it; the backend's parts are links into the wheel.

    lib/ has the interpreter's library under the name of the one that the wheel brings for some versions: that one
    expects another standard library than Debian's. The stub is a copy, because through a link it would find the
    wheel's first. The directory is kept, one for each wheel and Python version: a run that is killed leaves nothing.
    """
    brought = {path.name: libpython for path in libraries.glob(f"libpython3-*.{sys.version_info.minor}.so.1.0")}
    parts = {path.name: path for path in backend.iterdir() if path.is_file()}
    key = hashlib.sha256(f"{stub} {libpython}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "model-analyzer" / f"backends-{key}"
    try:
        _fill(directory, parts, stub, brought)
    except OSError:  # a read-only home
        directory = Path(tempfile.mkdtemp(prefix="model-analyzer-backends-"))
        _fill(directory, parts, stub, brought)
    return directory


def _fill(directory: Path, parts: dict[str, Path], stub: Path, brought: dict[str, Path]) -> None:
    _link(directory / "python", parts)
    _link(directory / "lib", brought)
    copy = directory / "python" / STUB
    if not copy.is_file() or copy.is_symlink() or not filecmp.cmp(stub, copy):
        fresh = copy.with_name(f".{STUB}.{os.getpid()}")
        shutil.copy2(stub, fresh)
        fresh.replace(copy)


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
