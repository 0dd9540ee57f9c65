"""`python -m tests.images [analyzer|triton-cpu|base|all]`: build what is not there yet; print the archives' paths."""

from __future__ import annotations

import sys

from .archives import NAMES, archive
from .errors import ImagesError


def main(arguments: list[str]) -> int:
    """The exit code."""
    asked = arguments or ["all"]
    if set(asked) - {*NAMES, "all"}:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for name in NAMES if "all" in asked else asked:
            print(archive(name, say=lambda line: print(line, file=sys.stderr, flush=True)), flush=True)
    except ImagesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
