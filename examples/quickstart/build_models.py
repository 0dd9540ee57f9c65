"""Build the demo's model repository: python build_models.py DIRECTORY.

Copies models_src/ and puts the network of the installed `magika` wheel in its place. Safe to
run again: a repository that is up to date is left alone, another one is replaced as a whole.
"""

import filecmp
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "models_src"


def main() -> None:
    """Build the repository named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python build_models.py DIRECTORY")
    target = Path(sys.argv[1]).absolute()
    print(f"{target}: {'built' if build(target) else 'up to date'}")


def build(target: Path) -> bool:
    """Make `target` the demo repository; False where it was that already."""
    if target.exists() and not _is_repository(target):
        sys.exit(f"{target}: is not a demo repository, and is not replaced; name another directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        fresh = Path(scratch) / "new"
        shutil.copytree(SOURCES, fresh, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(magika_network(), fresh / "magika" / "1" / "model.onnx")
        if target.exists():
            if _same(target, fresh):
                return False
            target.rename(Path(scratch) / "old")
        fresh.rename(target)
    return True


def magika_network() -> Path:
    """The ONNX file of the installed `magika` wheel, without importing it."""
    spec = importlib.util.find_spec("magika")
    locations = spec.submodule_search_locations if spec else None
    networks = sorted(Path(locations[0]).glob("models/*/model.onnx")) if locations else []
    if not networks:
        sys.exit("magika: its model.onnx is not installed; pip install 'model-analyzer[demo]'")
    return networks[-1]


def _is_repository(target: Path) -> bool:
    """Whether nothing but our models is there, so that replacing it destroys nobody's work."""
    return target.is_dir() and {path.name for path in target.iterdir()} <= {path.name for path in SOURCES.iterdir()}


def _same(old: Path, new: Path) -> bool:
    files = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
    there = sorted(p.relative_to(old) for p in old.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return files == there and all(filecmp.cmp(old / name, new / name, shallow=False) for name in files)


if __name__ == "__main__":
    main()
