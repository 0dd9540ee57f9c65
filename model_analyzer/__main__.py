"""The program: `model-analyzer`, and `python -m model_analyzer`.

SIGINT and SIGTERM are answered from the first line on: the imports below take longer than a person needs for Ctrl-C, and
in a container, where we are process 1, the kernel drops a signal that has no handler.
"""

import os
import signal
from types import FrameType


def _leave(signum: int, _: FrameType | None) -> None:
    """End at once: nothing has begun yet, or all is done. `interruptible` takes over in between."""
    os.write(
        2, f"error: run: interrupted by {signal.Signals(signum).name}; run the same command again to resume\n".encode()
    )
    os._exit(128 + signum)


for _one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_one, _leave)

from model_analyzer.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
