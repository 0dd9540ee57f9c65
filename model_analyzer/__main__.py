"""The program: `model-analyzer`, and `python -m model_analyzer`.

SIGINT and SIGTERM are answered from the first line on: the imports below take longer than a person needs for Ctrl-C, and
in a container, where we are process 1, the kernel drops a signal that has no handler.
"""

import gc
import os
import signal
import sys
from types import FrameType

# What is imported stays: 120,000 objects for a run over gRPC. The collector would look through it every 700 objects, which is
# a sixth of a start's CPU.
gc.set_threshold(200_000)


def _leave(signum: int, _: FrameType | None) -> None:
    """End at once: nothing has begun yet, or all is done. `interruptible` takes over in between."""
    os.write(
        2, f"error: run: interrupted by {signal.Signals(signum).name}; run the same command again to resume\n".encode()
    )
    os._exit(128 + signum)


for _one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_one, _leave)

from model_analyzer.cli import main as cli  # noqa: E402


def main() -> None:
    """The command line; the process ends at once, without taking hundreds of modules apart one by one."""
    try:
        cli.main()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


if __name__ == "__main__":
    main()
