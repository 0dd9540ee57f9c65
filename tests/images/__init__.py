"""Our images for tests, built here without a registry and kept as docker-archives: `archive("analyzer")`.

By hand: `python -m tests.images [analyzer|triton-cpu|base|all]` prints the archives' paths.
"""

from .archives import NAMES, REFS, archive
from .errors import ImagesError

__all__ = ["NAMES", "REFS", "ImagesError", "archive"]
