"""Make a folder of installed packages small: python slim.py SITE_PACKAGES. Runs in the build stages of our images.

What goes: packages that only unused halves of others ask for, tests, type stubs, C sources, symbol tables, and the
sources of what has been compiled to bytecode. Each was checked by running the image. Metadata and licences stay.
"""

from __future__ import annotations

import compileall
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# The asyncio halves of kubernetes and tritonclient, which we do not call, and what they alone import; tools; and the
# library for C programs, which onnxruntime's Python module has inside.
UNUSED = (
    "onnxruntime/capi/libonnxruntime.so*",
    "kubernetes/aio",
    "tritonclient/grpc/aio",
    "tritonclient/http/aio",
    "aiohttp",
    "aiohttp_retry",
    "aiosignal",
    "aiohappyeyeballs",
    "frozenlist",
    "multidict",
    "propcache",
    "yarl",
    "gevent/testing",
    "numpy/f2py",
    "numpy/distutils",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)
TESTS = ("tests", "test")
# rich colours Python in tracebacks; no other language.
LEXERS = {"__init__.py", "_mapping.py", "python.py"}
SOURCES = {".pyi", ".pyx", ".pxd", ".c", ".h", ".cpp", ".hpp", ".a"}
# Generated from the API's description: half of each file is its text again.
WITHOUT_DOCSTRINGS = "kubernetes"
ELF64 = b"\x7fELF\x02"


def main() -> None:
    """Slim the folder named on the command line."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python slim.py SITE_PACKAGES")
    site = Path(sys.argv[1])
    before = size(site)
    remove_unused(site)
    for path in regular_files(site):
        cut_symbols(path)
    keep_bytecode_only(site)
    print(f"{site}: {before / 1e6:.1f} MB -> {size(site) / 1e6:.1f} MB")


def remove_unused(site: Path) -> None:
    """Whole packages, tests, stubs and sources of what is compiled."""
    for name in UNUSED:
        for path in [*site.glob(name), *site.glob(f"{name}-*.dist-info")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Deepest first, because tests have tests.
    for folder in sorted((path for path in site.rglob("*") if path.name in TESTS and path.is_dir()), reverse=True):
        shutil.rmtree(folder)
    for path in regular_files(site):
        is_lexer = path.parent == site / "pygments" / "lexers"
        if path.suffix in SOURCES or (is_lexer and path.name not in LEXERS):
            path.unlink()


def cut_symbols(path: Path) -> bool:
    """Cut off what lies behind the last segment of a 64-bit ELF file: symbols and section headers.

    The loader maps segments and reads nothing else, so what it does with the file stays the same; `strip` does as
    much, and the base images do not have it. Source: System V ABI, chapters 4 and 5.
    """
    with path.open("rb+") as file:
        head = bytearray(file.read(64))
        if head[:5] != ELF64 or head[5] != 1:
            return False
        (table,) = struct.unpack_from("<Q", head, 32)
        width, count = struct.unpack_from("<HH", head, 54)
        file.seek(table)
        segments = file.read(width * count)
        # Of each segment: p_offset and p_filesz.
        ends = [
            sum(struct.unpack_from("<Q", segments, index * width + field)[0] for field in (8, 32))
            for index in range(count)
        ]
        end = max([len(head), table + width * count, *ends])
        # e_shoff; e_shnum and e_shstrndx.
        struct.pack_into("<Q", head, 40, 0)
        struct.pack_into("<HH", head, 60, 0, 0)
        file.seek(0)
        file.write(head)
        file.truncate(end)
    return True


def keep_bytecode_only(site: Path) -> None:
    """Replace each source file by its bytecode: nothing to compile, or to write, when the container starts."""
    for package in sorted(site.iterdir()):
        optimize = 2 if package.name == WITHOUT_DOCSTRINGS else -1
        compile_one = compileall.compile_dir if package.is_dir() else compileall.compile_file
        if package.is_dir() or package.suffix == ".py":
            compile_one(str(package), quiet=2, legacy=True, optimize=optimize)
    for path in regular_files(site):
        # A template that is no Python stays as it is.
        if path.suffix == ".py" and path.with_suffix(".pyc").exists():
            path.unlink()
    for cache in list(site.rglob("__pycache__")):
        shutil.rmtree(cache)


def size(folder: Path) -> int:
    """Bytes of the files under it."""
    return sum(path.stat().st_size for path in regular_files(folder))


def regular_files(folder: Path) -> Iterator[Path]:
    """Files under it that are no links."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main()
