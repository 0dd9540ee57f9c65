"""The store: append-only JSON lines under the export path, one fsynced line a record.

A torn last line (a kill in mid-write) is cut off when the store is opened. One
process at a time: an advisory lock that dies with its holder.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from model_analyzer.adapters.files import cannot_write, sign_lock, try_lock, write_atomically
from model_analyzer.core.hardware import UNKNOWN, GpuTypes, holds, measured_on
from model_analyzer.core.measurement import Baseline, Measurement, Slice
from model_analyzer.core.repeats import whole_repeats
from model_analyzer.errors import ExportPathError

FILENAME = "measurements.jsonl"
LOCKNAME = ".lock"
# A shard's folder below the export path, with its number.
SHARD = "shard-"
# How often a run looks whether the one that it waits for has ended.
LOCK_POLL_S = 0.5

_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)
_BASELINE: TypeAdapter[Baseline] = TypeAdapter(Baseline)


@dataclass(slots=True)
class Contents:
    """What a store holds.

    rows: (phase id, GPU types) -> its last measurement on them, oldest first. server_only: likewise the baselines.
    slices: of phases that are not finished yet: without a measurement, or with one of fewer repeats than `asked`. runs: the `run` records (phase order, output fields), oldest first.
    here: the GPU types of the last run; what was measured on another known type stays, and does not count meanwhile.
    touched: (endpoint, model) -> a model of a remote server that was changed and not restored, as the run found it.
    """

    rows: dict[tuple[str, GpuTypes], Measurement] = field(default_factory=dict)
    server_only: dict[tuple[str, GpuTypes, frozenset[str]], Baseline] = field(default_factory=dict)
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    here: GpuTypes = UNKNOWN
    touched: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: int = 1
    _begun_on: dict[str, GpuTypes] = field(default_factory=dict)

    @property
    def measurements(self) -> dict[str, Measurement]:
        """Phase id -> its last measurement that holds here, oldest first."""
        found: dict[str, Measurement] = {}
        for (phase_id, types), measurement in self.rows.items():
            if holds(types, self.here):
                found.pop(phase_id, None)
                found[phase_id] = measurement
        return found

    @property
    def baselines(self) -> dict[str, Baseline]:
        """Id -> the last baseline that holds here."""
        return {key[0]: baseline for key, baseline in self.server_only.items() if holds(key[1], self.here)}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one record; a measurement closes its phase's slices (but for repeats to come), a later
        one on the same GPU types replaces it.
        """
        kind, data = record["kind"], record["data"]
        if kind == "slice":
            self.slices.setdefault(data["phase_id"], []).append(Slice.from_json(data))
            self._begun_on[data["phase_id"]] = self._begun_on.get(data["phase_id"], UNKNOWN) | self.here
        elif kind == "measurement":
            measurement = _MEASUREMENT.validate_python(data)
            self._close(measurement)
            key = (measurement.phase.id, measured_on(measurement))
            self.rows.pop(key, None)
            self.rows[key] = measurement
        elif kind == "baseline":
            baseline = _BASELINE.validate_python(data)
            server = (baseline.id, measured_on(baseline), frozenset(baseline.gpus))
            self.server_only.pop(server, None)
            self.server_only[server] = baseline
        elif kind == "run":
            self.runs.append(data)
            self.here = frozenset(data.get("gpu_types", ()))
            # A phase is no mean of two GPU types: what was begun on another begins anew.
            for phase_id in [each for each, types in self._begun_on.items() if not holds(types, self.here)]:
                self._drop_slices(phase_id)
        elif kind == "touched":
            self.touched.pop((data["endpoint"], data["model"]), None)
            if data["before"]["changed"]:
                self.touched[data["endpoint"], data["model"]] = data["before"]

    def _close(self, measurement: Measurement) -> None:
        """Drop the slices that no later repeat goes with: all, or of a phase that is to have more, those of no whole one."""
        phase_id, whole = measurement.phase.id, whole_repeats(measurement)
        kept = [piece for piece in self.slices.get(phase_id, ()) if piece.repeat < whole < self.asked]
        if kept:
            self.slices[phase_id] = kept
        else:
            self._drop_slices(phase_id)

    def _drop_slices(self, phase_id: str) -> None:
        self.slices.pop(phase_id, None)
        self._begun_on.pop(phase_id, None)


def read(export_path: Path, asked: int = 1) -> Contents:
    """All that the store under `export_path` holds; empty where there is none. Raises ExportPathError.

    asked: how many repeats a phase is to have: until then its slices are needed.
    """
    contents = Contents(asked=asked)
    path = export_path / FILENAME
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            contents.add(json.loads(line))
        except (ValueError, LookupError, TypeError, AttributeError, ValidationError, zlib.error) as error:
            what = f"not a record of this version ({type(error).__name__}: {str(error).splitlines()[0]})"
            raise ExportPathError(
                f"{path}:{number}", what, "move the file away, or use another --export-path"
            ) from None
    return contents


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that end; a torn last one is left out."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise ExportPathError(str(path), f"cannot be read ({error.strerror})", "mend its permissions") from error


def stores_of(export_path: Path) -> list[Path]:
    """The folders with a store of one run: the export path itself, and its shards by number."""
    shards = sorted(
        (folder for folder in export_path.glob(f"{SHARD}*") if folder.name.removeprefix(SHARD).isdecimal()),
        key=lambda folder: int(folder.name.removeprefix(SHARD)),
    )
    return [folder for folder in (export_path, *shards) if (folder / FILENAME).is_file()]


def write_whole(
    export_path: Path, measurements: Iterable[Measurement], baselines: Iterable[Baseline], run: Any
) -> None:
    """Replace the store under `export_path` in one step. Raises ExportPathError, also while a run holds it."""
    records = [
        *(("baseline", _BASELINE.dump_python(baseline, mode="json")) for baseline in baselines),
        *(("measurement", _MEASUREMENT.dump_python(measurement, mode="json")) for measurement in measurements),
        ("run", run),
    ]
    lock = _take_lock(export_path, 0.0, None)
    try:
        write_atomically(export_path / FILENAME, "".join(_line(kind, data) for kind, data in records), export_path)
    finally:
        os.close(lock)


def _line(kind: str, data: Any) -> str:
    return json.dumps({"kind": kind, "data": data}, separators=(",", ":"), allow_nan=False) + "\n"


class JsonlStore:
    """The open store of one run. Use as a context manager: it holds the lock while open."""

    def __init__(
        self, export_path: Path, wait_s: float = 0.0, say: Callable[[str], None] | None = None, asked: int = 1
    ) -> None:
        """Open it. wait_s: how long to wait for another run that holds it; `say` hears once for whom. asked: as in `read`."""
        self.path = export_path / FILENAME
        self._lock = _take_lock(export_path, wait_s, say)
        try:
            self.contents = read(export_path, asked)
            self._fd = _open_at_last_whole_line(self.path)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> JsonlStore:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        os.close(self._lock)

    def slices_of(self, phase_id: str) -> list[Slice]:
        """The slices of a phase that is not finished yet, oldest first."""
        return self.contents.slices.get(phase_id, [])

    def add_slice(self, piece: Slice) -> None:
        """Keep one finished slice."""
        self._append("slice", piece.to_json())

    def add_measurement(self, measurement: Measurement) -> None:
        """Keep one finished phase."""
        self._append("measurement", _MEASUREMENT.dump_python(measurement, mode="json"))

    def add_baseline(self, baseline: Baseline) -> None:
        """Keep the server-only baseline."""
        self._append("baseline", _BASELINE.dump_python(baseline, mode="json"))

    def add_run(self, record: Mapping[str, Any]) -> None:
        """Keep what a run set out to do: its phases in order, its output fields."""
        self._append("run", record)

    def add_touched(self, endpoint: str, model: str, before: Mapping[str, Any]) -> None:
        """Keep what a remote server's model was before we change it, or that it is so again (changed: false)."""
        self._append("touched", {"endpoint": endpoint, "model": model, "before": before})

    def _append(self, kind: str, data: Mapping[str, Any]) -> None:
        line = _line(kind, data).encode()
        start = os.lseek(self._fd, 0, os.SEEK_END)
        try:
            _write_all(self._fd, line)
            os.fsync(self._fd)
        except OSError as error:
            # Cut a half-written line off, so that the file stays whole when the disk is full.
            with suppress(OSError):
                os.ftruncate(self._fd, start)
            raise cannot_write(self.path, error) from error
        if not self._in_place():
            what = "was removed or replaced while the run was writing it"
            raise ExportPathError(str(self.path), what, "put it back or start anew: the same command resumes")
        self.contents.add(json.loads(line))

    def _in_place(self) -> bool:
        """Whether the open file is still the one at `path`: a removed or renamed folder takes it away silently."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except OSError:
            return False


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _take_lock(export_path: Path, wait_s: float, say: Callable[[str], None] | None) -> int:
    """The file descriptor that holds the lock. Raises ExportPathError, after `wait_s` seconds where another has it."""
    path = export_path / LOCKNAME
    try:
        export_path.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise cannot_write(export_path, error) from error
    try:
        _await_lock(fd, export_path, wait_s, say)
    except OSError as error:
        os.close(fd)
        what = f"cannot be locked ({error.strerror})"
        raise ExportPathError(str(path), what, "use an --export-path on a file system with locks") from error
    except BaseException:
        os.close(fd)
        raise
    try:
        sign_lock(fd)
    except OSError as error:
        os.close(fd)
        raise cannot_write(export_path, error) from error
    return fd


def _await_lock(fd: int, export_path: Path, wait_s: float, say: Callable[[str], None] | None) -> None:
    """Lock it, now or within `wait_s` seconds. Raises ExportPathError with the holder's name, OSError."""
    deadline, said = time.monotonic() + wait_s, False
    while True:
        # Not blocking: a lock that is waited for in the kernel would not end with the time.
        holder = try_lock(fd)
        if holder is None:
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            waited = f", {wait_s:g} s long" if wait_s else ""
            what, fix = f"is in use by {holder}{waited}", "wait for it to end, or use another --export-path"
            raise ExportPathError(str(export_path), what, fix)
        if say is not None and not said:
            said = True
            say(f"waiting up to {wait_s:g} s for {export_path}, which is in use by {holder}")
        time.sleep(min(LOCK_POLL_S, left_s))


def _open_at_last_whole_line(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.ftruncate(fd, _whole_length(fd))
        _keep_entry(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return fd


def _keep_entry(directory: Path) -> None:
    """Make a new file's name durable, too, on file systems that know how: after a power loss it may be nameless."""
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _whole_length(fd: int) -> int:
    """Bytes up to and with the last newline."""
    end = os.lseek(fd, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
