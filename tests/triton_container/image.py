"""A CPU Triton image from what is installed here: no registry, no package mirror, seconds.

The image holds the server of the nvidia-pytriton wheel, its Python backend, this interpreter with numpy and
onnxruntime, and the shared libraries that they need, laid out as in NVIDIA's images: `tritonserver` on PATH,
backends in /opt/tritonserver/backends.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from model_analyzer.adapters.triton.embedded import PYTHON, STUB, find_embedded

REPOSITORY = "nvcr.io/nvidia/tritonserver"
STDLIB = f"/usr/local/lib/python{PYTHON}"
SITE = f"{STDLIB}/site-packages"
TRITON = "/opt/tritonserver"
# Packages of the demo's models: whatever else a model imports is not in the image.
PACKAGES = ("numpy", "numpy.libs", "onnxruntime")
# Large parts of the standard library that no model needs.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "site-packages", "dist-packages"}
SETTINGS = (
    f"ENV PATH={TRITON}/bin:/usr/local/bin:/usr/bin:/bin",
    f"ENV LD_LIBRARY_PATH={TRITON}/lib:/usr/local/lib",
    "ENV PYTHONHOME=/usr/local",
    f"ENV PYTHONPATH={SITE}",
)


@dataclass(frozen=True)
class Part:
    """A file of this machine and its place in the image."""

    source: Path
    target: str


@contextmanager
def in_engine(client: Any, scratch: Path) -> Iterator[str]:
    """Import the image where the engine doesn't have it, and remove it again; its version.

    scratch: a file to write, 400 MB for a moment. Raises ServerError where there is no embedded Triton.
    """
    found = parts()
    version = f"cpu-{content_hash(found)}"
    name = f"{REPOSITORY}:{version}-py3"
    if client.images.list(name=name):
        yield version
        return
    with scratch.open("wb") as stream:
        write_tar(found, stream)
    client.api.import_image(str(scratch), repository=REPOSITORY, tag=f"{version}-py3", changes=list(SETTINGS))
    scratch.unlink()
    try:
        yield version
    finally:
        client.images.remove(name, force=True)


def parts() -> list[Part]:
    """Every file of the image. Raises ServerError where there is no embedded Triton."""
    server = find_embedded()
    package = server.binary.parent.parent
    wheel_libraries = package.parent.parent / "nvidia_pytriton.libs"
    stub = package / "python_backend_stubs" / PYTHON / STUB
    found = [
        Part(server.binary, f"{TRITON}/bin/tritonserver"),
        Part(stub, f"{TRITON}/backends/python/{STUB}"),
        Part(Path(sys.executable).resolve(), "/usr/local/bin/python3"),
        # The Python backend starts its stub with `bash -c`.
        *(Part(_program("bash"), f"/bin/{name}") for name in ("bash", "sh")),
        *_tree(package / "backends" / "python", f"{TRITON}/backends/python"),
        *_tree(wheel_libraries, f"{TRITON}/lib"),
        *_tree(Path(sysconfig.get_path("stdlib")), STDLIB),
    ]
    for name in PACKAGES:
        found += _tree(package.parent.parent / name, f"{SITE}/{name}")
    return [*found, *_shared_libraries(found, server.environment["LD_LIBRARY_PATH"])]


def content_hash(found: Iterable[Part]) -> str:
    """Of names, sizes and times: another wheel, interpreter or host library makes another image."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for part in sorted(found, key=lambda part: part.target):
        status = part.source.stat()
        digest.update(f"{part.target} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def write_tar(found: Iterable[Part], stream: IO[bytes]) -> None:
    """The image's root file system."""
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as tar:
        for directory in ("tmp", "etc", "root"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        for part in found:
            tar.add(part.source, part.target, recursive=False, filter=_as_root)


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o444
    return entry


def _tree(root: Path, target: str) -> Iterator[Part]:
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.name in LEFT_OUT or path.name.startswith((f"config-{PYTHON}", "_tkinter")):
            continue
        if path.is_dir():
            yield from _tree(path, f"{target}/{path.name}")
        elif path.is_file() and path.suffix != ".a":
            yield Part(path, f"{target}/{path.name}")


def _shared_libraries(found: Iterable[Part], search_path: str) -> Iterator[Part]:
    """What the loader takes from this machine, as `ldd` says; the wheels' own libraries are in already."""
    own = {part.source.resolve() for part in found}
    binaries = [str(part.source) for part in found if _is_elf(part.source)]
    listing = subprocess.run(
        ["ldd", *binaries],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"LD_LIBRARY_PATH": search_path},
    ).stdout
    taken: dict[str, Path] = {}
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == "=>" and words[2].startswith("/"):
            taken[words[0]] = Path(words[2])
        elif words and "/ld-linux" in words[0]:
            taken[words[0]] = Path(words[0])
    for name, path in taken.items():
        if path.resolve() not in own:
            yield Part(path, name if name.startswith("/") else f"/usr/local/lib/{name}")


def _is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _program(name: str) -> Path:
    found = shutil.which(name)
    assert found, f"{name} is not on PATH"
    return Path(found).resolve()
