"""One server process: in a session of its own, ends with us however we end, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import IO

SHARED_MEMORY = "/dev/shm"

# Becomes the server, after it has left a guard: a process that reads the pipe from us until one byte (all is
# well) or its end (we died, by SIGKILL too), and then ends the server's group and removes its shared memory.
# PR_SET_PDEATHSIG would end the server alone: a Python backend stub that is just loading a model stays for ever.
# The guard is forked twice, for a child of the server would count as its memory.
LAUNCHER = """
import glob, os, signal, sys, time
regions, command = sys.argv[1], sys.argv[2:]
server = os.getpid()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(1, 256)
        if not os.read(0, 1):
            for victim in (os.kill, os.killpg):
                try:
                    victim(server, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                time.sleep(0.5)
            for region in glob.glob(glob.escape(regions) + "*"):
                os.unlink(region)
    os._exit(0)
os.wait()
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
try:
    os.execv(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
"""
# The Python backend's stubs see their server's death within 0.3 s, remove their shared memory and exit.
ORPHANS_LEAVE_S = 1.0


class ServerProcess:
    """A started process and its group. shm_prefix: of the names of its files in /dev/shm."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes], shm_prefix: str
    ) -> None:
        self._shm_prefix = shm_prefix
        # start_new_session: Ctrl-C reaches us only, and we decide when the server ends.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, f"{SHARED_MEMORY}/{shm_prefix}", *command],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._burial = Thread(target=self._bury, daemon=True)
        self._burial.start()

    @property
    def pid(self) -> int:
        """The server's process id, and its group's."""
        return self._process.pid

    def death(self) -> str | None:
        """None while it runs, else how it ended."""
        code = self._process.poll()
        if code is None:
            return None
        return f"was ended by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"

    def end(self, grace_s: float) -> None:
        """SIGTERM, up to `grace_s` seconds, then SIGKILL; its group and shared memory are gone afterwards."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                pass
            finally:  # an interruption of the wait too must not leave it behind
                self._process.kill()
        self._burial.join()

    def _bury(self) -> None:
        """End what a dead server leaves: a stub holds its server's open connections, and whoever reads them hangs."""
        self._process.wait()
        deadline = time.monotonic() + ORPHANS_LEAVE_S
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.killpg(self.pid, 0)
                time.sleep(0.02)
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            for region in Path(SHARED_MEMORY).glob(f"{self._shm_prefix}*"):
                region.unlink(missing_ok=True)
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.write(b"x")
            self._process.stdin.close()


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
