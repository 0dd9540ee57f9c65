"""A folder of a running container, copied through exec: as a tar stream, made there by python, checked here by its digest.

The client library reads exec's channels into memory; here the frames go straight to disk. The stream may end early
(kubernetes/kubernetes#60140): what arrived counts only where size and SHA-256 are those that the other side names.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from model_analyzer.adapters.kubernetes.api import Api, KubernetesError
from model_analyzer.errors import AnalyzerError, ExportPathError, SpecError

STDOUT, STDERR, STATUS = 1, 2, 3
CLOSE = 255  # of one channel, in version 5 of the protocol
# Seconds for the connection, and for each wait for bytes.
CONNECT_S, SILENCE_S = 10.0, 60.0
STDERR_TAIL = 64 * 1024
TRIES = 3
# Runs where the results are, with the python of the image (3.6 or newer); it gives way to a run that is measuring.
# Hidden files are locks and drafts. A file that goes away meanwhile was a draft, or is there under its name again.
PROGRAM = """
import gzip, hashlib, json, os, sys, tarfile
root = sys.argv[1]
os.nice(10)

def say(**about):
    sys.stderr.write(json.dumps(about) + "\\n")
    sys.stderr.flush()

if not os.path.isdir(root):
    parent = os.path.dirname(root)
    there = sorted(os.listdir(parent))[:20] if os.path.isdir(parent) else []
    say(missing=root, there=[name for name in there if name[0] != "."])
    sys.exit(3)

class Counted:
    size, digest = 0, hashlib.sha256()
    def write(self, data):
        self.size += len(data)
        self.digest.update(data)
        return sys.stdout.buffer.write(data)
    def flush(self):
        sys.stdout.buffer.flush()

counted, left_out = Counted(), []
with gzip.GzipFile(fileobj=counted, mode="wb", compresslevel=1) as packed:
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for folder, below, names in os.walk(root):
            below[:] = sorted(name for name in below if name[0] != ".")
            for name in sorted(names):
                path = os.path.join(folder, name)
                if name[0] == "." or os.path.islink(path) or not os.path.isfile(path):
                    continue
                try:
                    file = open(path, "rb")
                except FileNotFoundError:
                    continue
                except OSError as error:
                    left_out.append(os.path.relpath(path, root) + " (" + error.strerror + ")")
                    continue
                with file:
                    tar.addfile(tar.gettarinfo(arcname=os.path.relpath(path, root), fileobj=file), file)
counted.flush()
say(size=counted.size, sha256=counted.digest.hexdigest(), left_out=left_out)
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """What came. files: below the folder. left_out: could not be read there, with the reason."""

    files: tuple[str, ...]
    size: int
    left_out: tuple[str, ...]


class _Torn(Exception):  # noqa: N818 -- a state of the stream
    """The stream ended before its end."""


def copy_folder(api: Api, namespace: str, pod: str, container: str, source: str, target: Path) -> Copied:
    """Copy `source` there into `target` here, each file in one step; a torn stream is tried again.

    Raises KubernetesError, SpecError where `source` is not there, ExportPathError.
    """
    for attempt in range(1, TRIES + 1):
        try:
            target.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".fetch-", dir=target))
        except OSError as error:
            raise _unwritable(target, error) from error
        try:
            names, end = _receive(api, namespace, pod, container, source, staging)
            _put_in_place(names, staging, target)
            return Copied(tuple(names), sum((target / name).stat().st_size for name in names), tuple(end["left_out"]))
        except _Torn as torn:
            if attempt == TRIES:
                what = f"the copy was cut off {TRIES} times ({torn})"
                raise KubernetesError(f"exec in pod {pod}", what, "try again; nothing here was changed") from torn
        except OSError as error:
            raise _unwritable(target, error) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    raise AssertionError("unreachable")


def _unwritable(target: Path, error: OSError) -> ExportPathError:
    fix = "free space, mend its permissions, or name another folder by -o"
    return ExportPathError(str(error.filename or target), f"cannot be written ({error.strerror})", fix)


def _put_in_place(names: list[str], staging: Path, target: Path) -> None:
    for name in names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(place)


def _receive(
    api: Api, namespace: str, pod: str, container: str, source: str, staging: Path
) -> tuple[list[str], dict[str, Any]]:
    """Unpack the stream; the names, and the program's last word. Raises _Torn, KubernetesError, SpecError, OSError."""
    connection = _exec(api, namespace, pod, container, ["python3", "-c", PROGRAM, source])
    try:
        stream = _Stream(connection)
        try:
            names = _unpack(stream, staging)
            stream.drain()
        except _Torn:
            _check_status(stream, pod, source)
            raise
        except (tarfile.TarError, EOFError, zlib.error) as error:
            stream.drain()
            _check_status(stream, pod, source)
            raise _Torn(str(error) or "no end") from error
        _check_status(stream, pod, source)
        return names, _checked(stream)
    finally:
        # Not close(): it waits for an answer, and what a signal raises meanwhile is lost in it.
        connection.shutdown()


def _unpack(stream: _Stream, staging: Path) -> list[str]:
    """Only plain files below the folder: whoever wrote the volume has no say in what happens elsewhere here."""
    names = []
    with tarfile.open(fileobj=stream, mode="r|gz", bufsize=1 << 16) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not member.isfile() or path.is_absolute() or ".." in path.parts:
                raise KubernetesError("the copied folder", f"holds {member.name!r}", "fetch another folder by --path")
            target = staging / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not extract(): its filters came with 3.11.4, and Debian 12 has 3.11.2.
            with cast(IO[bytes], tar.extractfile(member)) as content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
            names.append(str(path))
    return names


def _exec(api: Api, namespace: str, pod: str, container: str, command: list[str]) -> Any:
    """The open WebSocket of a command. Raises KubernetesError."""
    import websocket
    from kubernetes.client.exceptions import ApiException
    from kubernetes.stream import stream

    websocket.setdefaulttimeout(CONNECT_S)
    try:
        client = stream(
            api.core.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            container=container,
            command=command,
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
        )
    except ApiException as error:
        # The client makes this of everything that happens meanwhile, of a signal's exception, too.
        if isinstance(error.__context__, AnalyzerError):
            raise error.__context__ from None
        raise _refused(pod, namespace, error) from error
    client.sock.settimeout(SILENCE_S)
    return client.sock


def _refused(pod: str, namespace: str, error: Any) -> KubernetesError:
    where = f"exec in pod {pod}"
    if getattr(error.__context__, "status_code", None) == 403:
        fix = f"grant the verbs get and create on pods/exec in namespace {namespace} by a Role"
        return KubernetesError(where, "is not allowed (HTTP 403)", fix)
    text = " ".join(str(error.reason).split())
    return KubernetesError(where, f"is refused ({text[:200]})", "see the API server's message")


class _Stream(io.RawIOBase):
    """Standard output of the command; what comes on the other channels is kept beside it."""

    def __init__(self, connection: Any) -> None:
        self._frames = _frames(connection)
        self._rest = memoryview(b"")
        self.size, self.digest = 0, hashlib.sha256()
        self.stderr = self.status = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill from the frame that is there: at most one is in memory. 0 at the end."""
        while not self._rest:
            channel, data = next(self._frames, (None, b""))
            if channel is None:
                return 0
            if channel == STDOUT:
                self.size += len(data)
                self.digest.update(data)
                self._rest = memoryview(data)
            elif channel == STDERR:
                self.stderr = (self.stderr + data)[-STDERR_TAIL:]
            elif channel == STATUS:
                self.status += data
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def drain(self) -> None:
        """Read to the end."""
        scratch = bytearray(1 << 16)
        while self.readinto(scratch):
            pass


def _frames(connection: Any) -> Iterator[tuple[int, bytes]]:
    """Channel and data of each frame, to the end. Raises _Torn where the connection is lost or silent."""
    from websocket import ABNF, WebSocketException

    while True:
        try:
            opcode, frame = connection.recv_data_frame(True)
        except (WebSocketException, OSError) as error:
            raise _Torn(f"{type(error).__name__}: {error}") from error
        if opcode == ABNF.OPCODE_CLOSE:
            return
        if opcode in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and frame.data and frame.data[0] != CLOSE:
            yield frame.data[0], bytes(frame.data[1:])


def _check_status(stream: _Stream, pod: str, source: str) -> None:
    """Raise what the command failed with, if it did. Source: api/v1 Status on channel 3, after the command's end."""
    if not stream.status:
        return
    status = json.loads(stream.status)
    if status.get("status") == "Success":
        return
    last = _last_word(stream)
    if "missing" in last:
        there = ", ".join(last["there"]) or "nothing"
        raise SpecError(
            last["missing"], f"is not on the claim; there is {there}", "the run may not have begun; else give --path"
        )
    said = stream.stderr.decode(errors="replace").strip().splitlines()
    message = str(status.get("message", "")) if not said else said[-1]
    fix = "the reader's image needs python3: give another by --image"
    raise KubernetesError(f"exec in pod {pod}", f"copying {source} failed ({message})", fix)


def _checked(stream: _Stream) -> dict[str, Any]:
    """The program's last word, if all that it sent is here. Raises _Torn."""
    last = _last_word(stream)
    if last.get("size") != stream.size or last.get("sha256") != stream.digest.hexdigest():
        raise _Torn(f"{stream.size:,} of {last.get('size', 'an unknown number of')} bytes came")
    return last


def _last_word(stream: _Stream) -> dict[str, Any]:
    for line in reversed(stream.stderr.decode(errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}
