"""`python -m tests.e2e.cluster up|down|status|load ARCHIVE...|run COMMAND...`

`run` brings the cluster up with our images in it, runs the command, and takes the cluster down again if it was not up
before (KEEP_CLUSTER=1: not even then). With KUBECONFIG set it only runs the command, which is to use that cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .errors import ClusterError
from .node import Node

ROOT = Path(__file__).parents[3]
BANNER = "=" * 100


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
            case ["run", *command] if command:
                return run(node, command)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(node: Node, command: list[str]) -> int:
    """The command's exit code. Without a cluster it runs all the same, and its tests skip, each with the reason."""
    if os.environ.get("KUBECONFIG"):
        return subprocess.run(command, check=False).returncode
    was_up = node.answers()
    try:
        try:
            node.up()
            node.load(*archives())
        except ClusterError as error:
            print(f"{BANNER}\nNO KUBERNETES HERE: nothing on a cluster is tested\n{error}\n{BANNER}", file=sys.stderr)
        return subprocess.run(command, check=False).returncode
    finally:
        if not was_up and not os.environ.get("KEEP_CLUSTER"):
            node.down()


def archives() -> list[Path]:
    """Our images, built in a process of its own: it starts a Docker engine, and ends it. Raises ClusterError."""
    build = [sys.executable, "-m", "tests.images", "all"]
    done = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(build[1:])} ended with {done.returncode}")
    return [Path(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
