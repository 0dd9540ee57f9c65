"""Why a pod's container ended, where `kubectl describe pod` shows it: the file that TERMINATION_LOG names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# The kubelet reads no more of it. Source: kubernetes.io, "Determine the Reason for Pod Failure".
MOST_BYTES = 4096


def leave(lines: Iterable[str]) -> None:
    """Write the lines there, if there is such a file; a message that cannot be left is no fault of the run."""
    name = os.environ.get("TERMINATION_LOG")
    if not name:
        return
    message = "".join(f"{line}\n" for line in lines).encode(errors="replace")[:MOST_BYTES]
    with suppress(OSError):
        Path(name).write_bytes(message.decode(errors="ignore").encode())
