"""The store: append-only JSON lines under the export path, one fsynced line a record.

A torn last line (a kill in mid-write) is cut off when the store is opened. One
process at a time: an advisory lock that dies with its holder.
"""

from __future__ import annotations

import json
import os
import re
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import msgspec

from model_analyzer.adapters.files import cannot_write, sign_lock, try_lock, write_atomically
from model_analyzer.core.hardware import UNKNOWN, GpuTypes, holds, measured_on
from model_analyzer.core.measurement import Baseline, Measurement, Slice
from model_analyzer.core.repeats import whole_repeats
from model_analyzer.core.telemetry import Reading
from model_analyzer.errors import ExportPathError

FILENAME = "measurements.jsonl"
LOCKNAME = ".lock"
# A shard's folder below the export path, with its number.
SHARD = "shard-"
# How often a run looks whether the one that it waits for has ended.
LOCK_POLL_S = 0.5
# Why versions of before streams were measured skipped every phase of a decoupled model: such a row is none any more.
NOT_YET = "the model is decoupled (several replies a request), which is not supported yet"

# What reading a record may raise that is none, or none of this version.
UNSOUND = (ValueError, LookupError, TypeError, AttributeError, msgspec.MsgspecError, zlib.error)

K = TypeVar("K")
V = TypeVar("V")
Row = TypeVar("Row", Measurement, Baseline)

_MEASUREMENT = msgspec.json.Decoder(Measurement)
_BASELINE = msgspec.json.Decoder(Baseline)


class Place(NamedTuple):
    """Where a record stands in the file: its line, and the bytes of its data. repeat: of a slice."""

    line: int
    start: int
    length: int
    repeat: int = 0


class Outcome(NamedTuple):
    """What is known of a measurement without reading it."""

    place: Place
    status: str
    repeats: int


class Lines:
    """The records of a store's file, read again when they are asked for.

    A store of thousands of phases is larger than what a run should hold; most of it is never looked at again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def load(self, place: Place, parse: Callable[[bytes], V]) -> V:
        """One record's data. Raises ExportPathError."""
        try:
            if self._fd is None:
                # It stays open while this is used: the file may be replaced meanwhile, and these places are of this one.
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._fd)
            data = os.pread(self._fd, place.length, place.start)
        except OSError as error:
            raise ExportPathError(
                str(self._path), f"cannot be read ({error.strerror})", "mend its permissions"
            ) from error
        try:
            return parse(data)
        except UNSOUND as error:
            raise self.unsound(place.line, error) from None

    def unsound(self, line: int, error: Exception) -> ExportPathError:
        """Whatever is wrong with a record, with its line."""
        what = f"not a record of this version ({type(error).__name__}: {str(error).splitlines()[0]})"
        return ExportPathError(f"{self._path}:{line}", what, "move the file away, or use another --export-path")


class Stored(Mapping[K, V]):
    """A mapping whose values are read when they are asked for, each time."""

    def __init__(self, keys: Mapping[K, Any], load: Callable[[Any], V]) -> None:
        self._keys, self._load = keys, load

    def __getitem__(self, key: K) -> V:
        return self._load(self._keys[key])

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Ordered(Sequence[V]):
    """Some values of a mapping in the order of `keys`, read when they are asked for. shown: what is made of each."""

    def __init__(self, values: Mapping[K, V], keys: Sequence[K], shown: Callable[[V], V] = lambda value: value) -> None:
        self._values, self._keys, self._shown = values, keys, shown

    @overload
    def __getitem__(self, index: int) -> V: ...
    @overload
    def __getitem__(self, index: slice) -> Ordered[V]: ...
    def __getitem__(self, index: int | slice) -> V | Ordered[V]:
        if isinstance(index, slice):
            return Ordered(self._values, self._keys[index], self._shown)
        return self._shown(self._values[self._keys[index]])

    def __len__(self) -> int:
        return len(self._keys)


class Contents:
    """What a store holds.

    rows: (phase id, GPU types) -> its last measurement on them, oldest first. server_only: likewise the baselines.
    slices: of phases that are not finished yet: without a measurement, or with one of fewer repeats than `asked`. runs: the `run` records (phase order, output fields), oldest first.
    here: the GPU types of the last run; what was measured on another known type stays, and does not count meanwhile.
    touched: (endpoint, model) -> a model of a remote server that was changed and not restored, as the run found it.
    """

    def __init__(self, path: Path, asked: int = 1) -> None:
        self.asked = asked
        self.server_only: dict[tuple[str, GpuTypes, frozenset[str]], Baseline] = {}
        self.runs: list[dict[str, Any]] = []
        self.here: GpuTypes = UNKNOWN
        self.touched: dict[tuple[str, str], dict[str, Any]] = {}
        self._lines = Lines(path)
        self._count = 0
        self._rows: dict[tuple[str, GpuTypes], Outcome] = {}
        self.pieces: dict[str, list[Place]] = {}
        self._begun_on: dict[str, GpuTypes] = {}

    @property
    def rows(self) -> Mapping[tuple[str, GpuTypes], Measurement]:
        """Phase id and GPU types -> its last measurement on them, oldest first."""
        return Stored(self._rows, self._row)

    @property
    def slices(self) -> Mapping[str, list[Slice]]:
        """Phase id -> slices, of phases that are not finished yet."""
        return Stored(self.pieces, lambda places: [self._lines.load(place, _slice) for place in places])

    @property
    def measurements(self) -> Mapping[str, Measurement]:
        """Phase id -> its last measurement that holds here, oldest first."""
        return Stored(self.outcomes, self._row)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Phase id -> what is known of its last measurement that holds here, oldest first; nothing is read for it."""
        found: dict[str, Outcome] = {}
        for (phase_id, types), row in self._rows.items():
            if holds(types, self.here):
                found.pop(phase_id, None)
                found[phase_id] = row
        return found

    @property
    def baselines(self) -> dict[str, Baseline]:
        """Id -> the last baseline that holds here."""
        return {key[0]: baseline for key, baseline in self.server_only.items() if holds(key[1], self.here)}

    def check(self) -> None:
        """Raises ExportPathError where the newest row is none of this version: before a run adds to such a store."""
        newest = next(reversed(self._rows.values()), None)
        if newest is not None:
            self._row(newest)

    def _row(self, row: Outcome) -> Measurement:
        return self._lines.load(row.place, _measurement)

    def add(self, line: bytes, start: int) -> None:
        """Take in a line that begins at byte `start`. Raises ExportPathError where it is no record.

        A measurement closes its phase's slices (but for repeats to come), a later one on the same GPU types replaces it. Of
        slices and measurements only the head is read; where it says too little, as in stores of earlier versions, all of it.
        A phase that was skipped because an earlier version could not measure it has no measurement.
        """
        self._count += 1
        try:
            self._add(line, start)
        except UNSOUND as error:
            raise self._lines.unsound(self._count, error) from None

    def _add(self, line: bytes, start: int) -> None:
        head, at = _head(line)
        length = len(line) - at - len(_END)
        if head.kind == "slice":
            head = head if head.id else _of_slice(_slice(line[at : -len(_END)]))
            self._add_slice(head.id, Place(self._count, start + at, length, head.repeat))
        elif head.kind == "measurement":
            text = line[at : -len(_END)]
            head = head if head.id else _of_measurement(_measurement(text))
            if head.status == "skipped" and NOT_YET in _measurement(text).notes:
                return
            place = Place(self._count, start + at, length)
            self._add_row(head.id, frozenset(head.gpu_types), Outcome(place, head.status, head.repeats))
        else:
            self._add_small(head.kind, line[at : -len(_END)])

    def _add_slice(self, phase_id: str, place: Place) -> None:
        self.pieces.setdefault(phase_id, []).append(place)
        self._begun_on[phase_id] = self._begun_on.get(phase_id, UNKNOWN) | self.here

    def _add_row(self, phase_id: str, types: GpuTypes, outcome: Outcome) -> None:
        self._close(phase_id, outcome)
        self._rows.pop((phase_id, types), None)
        self._rows[phase_id, types] = outcome

    def _add_small(self, kind: str, text: bytes) -> None:
        if kind == "baseline":
            baseline = _row_of(text, _BASELINE)
            server = (baseline.id, measured_on(baseline), frozenset(baseline.gpus))
            self.server_only.pop(server, None)
            self.server_only[server] = baseline
            return
        data = json.loads(text)
        if kind == "run":
            self.runs.append(data)
            self.here = frozenset(data.get("gpu_types", ()))
            # A phase is no mean of two GPU types: what was begun on another begins anew.
            for phase_id in [each for each, types in self._begun_on.items() if not holds(types, self.here)]:
                self._drop_slices(phase_id)
        elif kind == "touched":
            self.touched.pop((data["endpoint"], data["model"]), None)
            if data["before"]["changed"]:
                self.touched[data["endpoint"], data["model"]] = data["before"]

    def _close(self, phase_id: str, outcome: Outcome) -> None:
        """Drop the slices that no later repeat goes with: all, or of a phase that is to have more, those of no whole one."""
        whole = whole_repeats(outcome)
        kept = [place for place in self.pieces.get(phase_id, ()) if place.repeat < whole < self.asked]
        if kept:
            self.pieces[phase_id] = kept
        else:
            self._drop_slices(phase_id)

    def _drop_slices(self, phase_id: str) -> None:
        self.pieces.pop(phase_id, None)
        self._begun_on.pop(phase_id, None)


class _Head(msgspec.Struct, omit_defaults=True):
    """What a line says of its data before them: of slices and measurements enough to know what is left to do.

    id: the phase's; empty in stores of earlier versions, which say nothing else, too. repeat: of a slice. The others: of a measurement.
    """

    kind: str
    id: str = ""
    repeat: int = 0
    status: str = ""
    repeats: int = 0
    gpu_types: tuple[str, ...] = ()


# A line is {"kind": ..., "id": ..., "data": ...}: all that stands before `data` is its head.
_DATA, _END = re.compile(rb',\s*"data":\s*'), b"}\n"
_HEAD = msgspec.json.Decoder(_Head)


def _head(line: bytes) -> tuple[_Head, int]:
    """What stands before the data, and where the data begin. Raises ValueError, msgspec.MsgspecError."""
    found = _DATA.search(line)
    if found is None or not line.endswith(_END):
        json.loads(line)  # says what is wrong with it, if it is no JSON
        raise ValueError("no data")
    return _HEAD.decode(line[: found.start()] + b"}"), found.end()


def _measurement(data: bytes) -> Measurement:
    return _row_of(data, _MEASUREMENT)


def _row_of(data: bytes, decoder: msgspec.json.Decoder[Row]) -> Row:
    """A row of this version; or of an earlier one, which has its readings by name. Raises msgspec.ValidationError."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        record: dict[str, Any] = json.loads(data)
        named = [record["host"], *record["gpus"].values()]
        if not all(isinstance(reading, dict) for readings in named for reading in readings.values()):
            raise
        for readings in named:
            readings |= {tag: [old.get(name) for name in Reading._fields] for tag, old in readings.items()}
        return msgspec.convert(record, decoder.type)


def _slice(data: bytes) -> Slice:
    return Slice.from_json(json.loads(data))


def _of_slice(piece: Slice) -> _Head:
    return _Head("slice", piece.phase_id, repeat=piece.repeat)


def _of_measurement(measurement: Measurement) -> _Head:
    m = measurement
    types = tuple(sorted(measured_on(m)))
    return _Head("measurement", m.phase.id, status=m.status, repeats=m.repeats, gpu_types=types)


def read(export_path: Path, asked: int = 1) -> Contents:
    """All that the store under `export_path` holds; empty where there is none. Raises ExportPathError.

    asked: how many repeats a phase is to have: until then its slices are needed.
    """
    path = export_path / FILENAME
    contents = Contents(path, asked)
    start = 0
    for line in _whole_lines(path):
        contents.add(line, start)
        start += len(line)
    contents.check()
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
    lines = chain(
        (_line(_Head("baseline"), msgspec.to_builtins(baseline)) for baseline in baselines),
        (_measurement_line(measurement) for measurement in measurements),
        [_line(_Head("run"), run)],
    )
    lock = _take_lock(export_path, 0.0, None)
    try:
        write_atomically(export_path / FILENAME, lines, export_path)
    finally:
        os.close(lock)


def _line(head: _Head, data: Any) -> str:
    return json.dumps({**msgspec.to_builtins(head), "data": data}, separators=(",", ":"), allow_nan=False) + "\n"


def _measurement_line(measurement: Measurement) -> str:
    return _line(_of_measurement(measurement), msgspec.to_builtins(measurement))


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
        self._append(_line(_of_slice(piece), piece.to_json()))

    def add_measurement(self, measurement: Measurement) -> None:
        """Keep one finished phase."""
        self._append(_measurement_line(measurement))

    def add_baseline(self, baseline: Baseline) -> None:
        """Keep the server-only baseline."""
        self._append(_line(_Head("baseline"), msgspec.to_builtins(baseline)))

    def add_run(self, record: Mapping[str, Any]) -> None:
        """Keep what a run set out to do: its phases in order, its output fields."""
        self._append(_line(_Head("run"), record))

    def add_touched(self, endpoint: str, model: str, before: Mapping[str, Any]) -> None:
        """Keep what a remote server's model was before we change it, or that it is so again (changed: false)."""
        self._append(_line(_Head("touched"), {"endpoint": endpoint, "model": model, "before": before}))

    def _append(self, text: str) -> None:
        line = text.encode()
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
        self.contents.add(line, start)

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
