"""`python -m tests.e2e.cluster up|down|status|load ARCHIVE...`"""

from __future__ import annotations

import sys
from pathlib import Path

from .errors import ClusterError
from .node import Node


def main(arguments: list[str]) -> int:
    """The exit code."""
    node = Node()
    try:
        match arguments:
            case ["up"]:
                node.up()
                print(f"export KUBECONFIG={node.kubeconfig}")
            case ["down"]:
                node.down()
            case ["status"]:
                up = node.answers()
                print("up" if up else "down")
                return 0 if up else 1
            case ["load", *archives] if archives:
                node.load(*map(Path, archives))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
