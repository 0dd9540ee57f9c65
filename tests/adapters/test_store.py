"""The store: what was finished is there after a kill, a full disk, a second run."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from measured import baseline, measured, phase, piece

from model_analyzer.adapters import store
from model_analyzer.adapters.resume import goes_on
from model_analyzer.adapters.store import FILENAME, NOT_YET, JsonlStore, read
from model_analyzer.core.reduce import failed, skipped
from model_analyzer.core.repeats import begun
from model_analyzer.errors import ExportPathError, Interrupted
from model_analyzer.interrupt import interruptible

ONE, TWO, THREE = phase(load=1), phase(load=2), phase(load=4)


def records(export_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (export_path / FILENAME).read_bytes().splitlines()]


def test_everything_reads_back_as_it_was(tmp_path: Path) -> None:
    ours = measured(TWO, gpu="GPU-a")
    with JsonlStore(tmp_path) as opened:
        opened.add_run({"phases": [ONE.id, TWO.id]})
        opened.add_baseline(baseline({"GPU-a": 1e9}))
        opened.add_slice(piece(ONE, gpu="GPU-a"))
        opened.add_measurement(ours)
    contents = read(tmp_path)
    assert contents.measurements == {TWO.id: ours}
    assert contents.baselines == {"b": baseline({"GPU-a": 1e9})}
    assert contents.runs == [{"phases": [ONE.id, TWO.id]}]
    (kept,) = contents.slices[ONE.id]
    assert kept.to_json() == piece(ONE, gpu="GPU-a").to_json()


def test_lines_of_an_earlier_version_read_as_ever(tmp_path: Path) -> None:
    """Without a head, with readings by name and telemetry as rows: they are parsed whole, once."""
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE, gpu="GPU-a"))
        opened.add_measurement(measured(TWO, gpu="GPU-a"))
    old = [{"kind": record["kind"], "data": record["data"]} for record in records(tmp_path)]
    for record in old:
        data = record["data"]
        assert isinstance(data, dict)
        if record["kind"] == "slice":
            rows = piece(ONE, gpu="GPU-a").telemetry.items()
            data["telemetry"] = [[*series, *astuple(summary)] for series, summary in rows]
        else:
            names = ("value", "source", "samples", "fresh", "reason", "note")
            for readings in (data["host"], *data["gpus"].values()):
                readings |= {tag: dict(zip(names, reading, strict=True)) for tag, reading in readings.items()}
    (tmp_path / FILENAME).write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in old))
    contents = read(tmp_path)
    assert contents.measurements == {TWO.id: measured(TWO, gpu="GPU-a")}
    assert {id_: outcome.status for id_, outcome in contents.outcomes.items()} == {TWO.id: "ok"}
    (kept,) = contents.slices[ONE.id]
    assert kept.to_json() == piece(ONE, gpu="GPU-a").to_json()


@pytest.mark.parametrize("heads", [True, False])
def test_a_phase_that_an_earlier_version_could_not_measure_is_not_measured_yet(tmp_path: Path, heads: bool) -> None:
    """Of a decoupled model. What makes no sense today either stays skipped."""
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(skipped(ONE, NOT_YET))
        opened.add_measurement(skipped(TWO, "batch size 16 is above the model's max_batch_size 8"))
    if not heads:
        old = [{"kind": record["kind"], "data": record["data"]} for record in records(tmp_path)]
        (tmp_path / FILENAME).write_text("".join(json.dumps(record) + "\n" for record in old))
    contents = read(tmp_path)
    assert {id_: outcome.status for id_, outcome in contents.outcomes.items()} == {TWO.id: "skipped"}
    assert set(contents.measurements) == {TWO.id}
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(measured(ONE))
    assert read(tmp_path).outcomes[ONE.id].status == "ok"


def test_what_is_left_to_do_is_known_without_reading_slices_or_more_than_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE))
        opened.add_measurement(measured(ONE))
        opened.add_measurement(measured(THREE))
        opened.add_slice(piece(TWO))
    monkeypatch.setattr(store, "_slice", lambda _: pytest.fail("read"))
    read_rows: list[bytes] = []
    monkeypatch.setattr(store, "_MEASUREMENT", SimpleNamespace(decode=read_rows.append))
    contents = read(tmp_path)
    assert {id_: outcome.status for id_, outcome in contents.outcomes.items()} == {ONE.id: "ok", THREE.id: "ok"}
    assert list(contents.slices) == [TWO.id]
    assert len(read_rows) == 1, "the newest: of another version, it is refused before a run adds to the store"


def test_a_row_that_is_broken_inside_is_named_when_it_is_read(tmp_path: Path) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE))
        opened.add_measurement(measured(ONE))
        opened.add_measurement(measured(TWO))
    path = tmp_path / FILENAME
    path.write_bytes(path.read_bytes().replace(b'"values":{', b'"values":[', 1))
    with pytest.raises(ExportPathError, match=f"{path}:2: not a record of this version"):
        read(tmp_path).measurements[ONE.id]


def test_rows_are_read_from_the_file_that_was_opened_though_it_is_replaced(tmp_path: Path) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(measured(ONE))
        opened.add_measurement(measured(TWO))
    contents = read(tmp_path)
    assert contents.measurements[ONE.id] == measured(ONE)
    store.write_whole(tmp_path, [measured(TWO)], [], {})
    assert contents.measurements[TWO.id] == measured(TWO)


def test_a_record_is_on_the_disk_when_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def spy(fd: int) -> None:
        fsync(fd)
        synced.append(os.fstat(fd).st_size)

    with JsonlStore(tmp_path) as opened:
        monkeypatch.setattr(os, "fsync", spy)
        sizes = []
        for add, record in (
            (opened.add_run, {}),
            (opened.add_baseline, baseline()),
            (opened.add_slice, piece(ONE)),
            (opened.add_measurement, measured(ONE)),
        ):
            add(record)  # type: ignore[operator]
            sizes.append((tmp_path / FILENAME).stat().st_size)
    assert synced == sizes, "one fsync a record, after the whole of it"


def test_an_open_store_knows_what_was_just_added(tmp_path: Path) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE, 0))
        opened.add_slice(piece(ONE, 1))
        assert [each.round for each in opened.slices_of(ONE.id)] == [0, 1]
        opened.add_measurement(measured(ONE))
        assert opened.slices_of(ONE.id) == []
        assert list(opened.contents.measurements) == [ONE.id]


def test_a_rerun_of_a_failed_phase_starts_afresh_and_its_measurement_replaces_the_old(tmp_path: Path) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE))
        opened.add_measurement(failed(ONE, "the server died"))
        opened.add_measurement(measured(TWO))
    with JsonlStore(tmp_path) as opened:
        assert opened.slices_of(ONE.id) == []
        opened.add_measurement(measured(ONE))
    contents = read(tmp_path)
    assert [(id_, m.status) for id_, m in contents.measurements.items()] == [(TWO.id, "ok"), (ONE.id, "ok")]


@pytest.mark.parametrize("torn", [b"{", b'{"kind":"slice","data":{"phase_id":"m', b"\0" * 5000, b"garbage"])
def test_a_torn_last_line_is_cut_off_and_the_next_record_is_whole(tmp_path: Path, torn: bytes) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(measured(ONE))
    with (tmp_path / FILENAME).open("ab") as file:
        file.write(torn)
    assert list(read(tmp_path).measurements) == [ONE.id], "a reader leaves it out"
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(measured(TWO))
    assert [record["kind"] for record in records(tmp_path)] == ["measurement"] * 2
    assert list(read(tmp_path).measurements) == [ONE.id, TWO.id]


def test_a_file_of_one_torn_line_longer_than_a_block_is_empty(tmp_path: Path) -> None:
    (tmp_path / FILENAME).write_bytes(b"x" * 200_000)
    with JsonlStore(tmp_path) as opened:
        assert opened.contents.measurements == {}
    assert (tmp_path / FILENAME).read_bytes() == b""


DAMAGED = json.loads(json.dumps(piece(ONE).to_json()))
DAMAGED["stats"]["latency"]["data"] = "AAAA"


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "[]",
        "null",
        "{}",
        '{"kind":"slice","data":[]}',
        '{"kind":"slice","data":{"phase_id":"m"}}',
        '{"kind":"measurement","data":{"status":"ok"}}',
        '{"kind":"baseline","data":7}',
        json.dumps({"kind": "slice", "data": DAMAGED}),
        "\udcff",
    ],
)
def test_garbage_in_the_middle_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(measured(ONE))
    with (tmp_path / FILENAME).open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    before = (tmp_path / FILENAME).read_bytes()
    for attempt in (lambda: read(tmp_path), lambda: JsonlStore(tmp_path)):
        with pytest.raises(ExportPathError) as caught:
            attempt()
        (fault,) = caught.value.faults
        assert fault.where == f"{tmp_path / FILENAME}:2"
        assert fault.what.startswith("not a record of this version (")
        assert "--export-path" in fault.fix
    assert (tmp_path / FILENAME).read_bytes() == before, "nothing is thrown away"
    with JsonlStore(tmp_path / "elsewhere"):  # the failed open has freed its lock
        pass


def hold(export_path: str, ready: object, release: object) -> None:
    with JsonlStore(Path(export_path)):
        ready.set()  # type: ignore[attr-defined]
        release.wait(20)  # type: ignore[attr-defined]


def test_a_second_run_is_refused_with_the_holder_and_free_when_it_dies(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(tmp_path), ready, release))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ExportPathError, match=f"is in use by process {holder.pid} on ") as caught:
            JsonlStore(tmp_path)
        assert caught.value.exit_code == 6
        assert read(tmp_path).measurements == {}, "status and tables may read meanwhile"
    finally:
        holder.kill()
        holder.join()
    with JsonlStore(tmp_path):
        pass


def test_a_run_that_waits_says_once_for_whom_and_goes_on_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_POLL_S", 0.01)
    said: list[str] = []
    with JsonlStore(tmp_path) as first, ExitStack() as stack:
        first.add_measurement(measured(ONE))

        def say(message: str) -> None:
            said.append(message)
            # Held for some polls more, so that a second message would have its chance.
            timer = threading.Timer(0.1, lambda: fcntl.flock(first._lock, fcntl.LOCK_UN))
            stack.callback(timer.join)
            timer.start()

        with JsonlStore(tmp_path, wait_s=60, say=say) as second:
            assert list(second.contents.measurements) == [ONE.id], "read after the wait, not before"
    assert said == [f"waiting up to 60 s for {tmp_path}, which is in use by {holder_here()}"]


def test_a_run_that_waits_in_vain_is_refused_as_one_that_does_not_wait(tmp_path: Path) -> None:
    with JsonlStore(tmp_path):
        began = time.monotonic()
        with pytest.raises(ExportPathError, match=f"is in use by {holder_here()}, 0.2 s long; wait"):
            JsonlStore(tmp_path, wait_s=0.2)
        assert time.monotonic() - began >= 0.2


@pytest.mark.usefixtures("signals")
def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    with JsonlStore(tmp_path):
        with pytest.raises(Interrupted), interruptible():
            JsonlStore(tmp_path, wait_s=60, say=lambda _: signal.raise_signal(signal.SIGTERM))
    with JsonlStore(tmp_path):  # whoever was interrupted holds nothing
        pass


def holder_here() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond this: the kernel writes what fits and refuses the rest, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_file_whole(tmp_path: Path) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_measurement(measured(ONE))
        whole = (tmp_path / FILENAME).read_bytes()
        with room_for(len(whole) + 100), pytest.raises(ExportPathError, match="cannot be written") as caught:
            opened.add_measurement(measured(TWO))
        assert caught.value.exit_code == 6
        assert (tmp_path / FILENAME).read_bytes() == whole
        assert list(opened.contents.measurements) == [ONE.id], "what is not on the disk does not count"
        opened.add_measurement(measured(TWO))
    assert list(read(tmp_path).measurements) == [ONE.id, TWO.id]


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_a_folder_that_vanishes_is_noticed_with_the_next_record(tmp_path: Path, how: str) -> None:
    export_path = tmp_path / "results"
    with JsonlStore(export_path) as opened:
        if how == "removed":
            (export_path / FILENAME).unlink()
        else:
            export_path.rename(tmp_path / "moved")
        if how == "replaced":
            export_path.mkdir()
            (export_path / FILENAME).touch()
        with pytest.raises(ExportPathError, match="was removed or replaced"):
            opened.add_measurement(measured(ONE))


def test_an_export_path_that_is_a_file_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ExportPathError, match="name a folder as --export-path"):
            JsonlStore(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_record_holds_what_json_does_not_know(tmp_path: Path, value: float) -> None:
    with JsonlStore(tmp_path) as opened:
        with pytest.raises(ValueError, match="JSON"):
            opened.add_measurement(replace(measured(ONE), values={"perf_throughput": value}))
        assert (tmp_path / FILENAME).read_bytes() == b""


def test_no_store_is_an_empty_store(tmp_path: Path) -> None:
    assert read(tmp_path / "absent").runs == []
    assert not (tmp_path / "absent").exists()


def test_ten_thousand_records_are_read_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE, gpu="GPU-a"))
        opened.add_measurement(measured(ONE, gpu="GPU-a"))
    a_slice, a_measurement = (tmp_path / FILENAME).read_bytes().splitlines(keepends=True)
    with (tmp_path / FILENAME).open("wb") as file:
        for number in range(2000):
            name = f'"m-{number}'.encode()
            file.writelines([a_slice.replace(b'"m-1', name)] * 4)
            file.write(a_measurement.replace(b'"m-1', name))
    before = time.process_time()
    contents = store.read(tmp_path)
    assert len(contents.measurements) == 2000
    assert contents.slices == {}
    assert time.process_time() - before < 10


class TestRepeats:
    """A phase that is to have more repeats keeps the slices of those it has."""

    def test_slices_stay_until_there_are_as_many_as_asked(self, tmp_path: Path) -> None:
        with JsonlStore(tmp_path, asked=2) as opened:
            opened.add_slice(piece(ONE, 0))
            opened.add_measurement(replace(measured(ONE), repeats=1))
            assert len(opened.slices_of(ONE.id)) == 1
            opened.add_slice(replace(piece(ONE, 0), repeat=1))
            opened.add_measurement(replace(measured(ONE), repeats=2))
            assert opened.slices_of(ONE.id) == []

    def test_asking_for_more_later_finds_the_slices_again(self, tmp_path: Path) -> None:
        with JsonlStore(tmp_path) as opened:
            opened.add_slice(piece(ONE, 0))
            opened.add_measurement(replace(measured(ONE), repeats=1))
            assert opened.slices_of(ONE.id) == []
        assert [each.repeat for each in read(tmp_path, asked=3).slices[ONE.id]] == [0]
        assert read(tmp_path).slices == {}

    def test_of_a_repeat_that_failed_nothing_stays(self, tmp_path: Path) -> None:
        with JsonlStore(tmp_path, asked=3) as opened:
            opened.add_slice(piece(ONE, 0))
            opened.add_measurement(replace(measured(ONE), repeats=1))
            opened.add_slice(replace(piece(ONE, 0), repeat=1))
            opened.add_measurement(replace(measured(ONE), repeats=1, status="failed"))
            assert [each.repeat for each in opened.slices_of(ONE.id)] == [0]
            opened.add_measurement(failed(ONE, "x"))
            assert opened.slices_of(ONE.id) == []

    def test_a_store_of_before_there_were_repeats_is_read_as_one(self, tmp_path: Path) -> None:
        with JsonlStore(tmp_path) as opened:
            opened.add_slice(piece(ONE, 0))
            opened.add_measurement(measured(ONE))
        path = tmp_path / FILENAME
        old = [json.loads(line) for line in path.read_text().splitlines()]
        for record in old:
            record["data"].pop("repeat" if record["kind"] == "slice" else "repeats")
        path.write_text("".join(json.dumps(record) + "\n" for record in old))
        contents = read(tmp_path, asked=2)
        assert begun(contents.measurements[ONE.id], contents.slices[ONE.id]) == 1


@pytest.mark.parametrize(("figure", "none"), [("unanswered", 0), ("cpu_time", None)])
def test_slices_of_before_a_figure_was_kept_do_not_have_it(tmp_path: Path, figure: str, none: int | None) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE))
    (old,) = records(tmp_path)
    del old["data"][figure]  # type: ignore[attr-defined]
    (tmp_path / FILENAME).write_text(json.dumps(old) + "\n")
    (kept,) = read(tmp_path).slices[ONE.id]
    assert kept == replace(piece(ONE), **{figure: none}, stats=kept.stats)


def test_a_run_says_which_begun_phases_it_goes_on_with(tmp_path: Path) -> None:
    with JsonlStore(tmp_path) as opened:
        opened.add_slice(piece(ONE, 0))
        opened.add_slice(piece(ONE, 1))
        opened.add_slice(piece(TWO))
        opened.add_measurement(measured(TWO))
        said = goes_on(opened.contents, [ONE, TWO], {ONE.id: 0, TWO.id: 1})
        assert said == [f"1 phase that an earlier run began goes on: {ONE} from 2 slices"]
        assert goes_on(opened.contents, [TWO], {TWO.id: 1}) == []


def test_of_many_begun_phases_a_few_are_named(tmp_path: Path) -> None:
    phases = [phase(load=n) for n in range(1, 6)]
    with JsonlStore(tmp_path) as opened:
        for each in phases:
            opened.add_slice(piece(each))
        (said,) = goes_on(opened.contents, phases, dict.fromkeys((each.id for each in phases), 0))
    assert said.startswith(f"5 phases that an earlier run began go on: {phases[0]} from 1 slice, ")
    assert said.endswith(f"{phases[2]} from 1 slice, and 2 more")
