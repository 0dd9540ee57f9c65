"""Tables from measurements: CSV files for scripts, a summary for people. Pure but for the writing at the end."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from model_analyzer.adapters.files import write_atomically
from model_analyzer.core.apart import ASPECTS
from model_analyzer.core.hardware import measured_on, shown
from model_analyzer.core.measurement import Baseline, Measurement
from model_analyzer.core.metric import (
    METRICS,
    OPEN_LOOP_FIELDS,
    OWN_GPU_FIELDS,
    OWN_INFERENCE_FIELDS,
    OWN_SERVER_FIELDS,
    STREAM_FIELDS,
    Metric,
    header,
)
from model_analyzer.core.select import Constraints, satisfies
from model_analyzer.core.telemetry import Reading
from model_analyzer.core.wording import told_together

# Characters of a reason in the summary.
SHOWN_REASON = 160
# Measurements that are in memory at a time while the tables are written.
BATCH = 50
SERVER_ONLY_NAME = "triton-server"
# Every phase that was streamed has it.
STREAM_SIGN = "output_token_throughput"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns stand in which file; all of it from the job spec, kept in the store's `run` record.

    *_fields: column or metric tags; our own columns follow those that are not named there.
    constraints: model name -> bounds. prices: GPU type, or words of it -> price of a GPU-hour.
    """

    inference_fields: tuple[str, ...]
    gpu_fields: tuple[str, ...]
    server_fields: tuple[str, ...]
    filename_inference: str
    filename_gpu: str
    filename_server: str
    constraints: Mapping[str, Constraints]
    prices: Mapping[str, float] = field(default_factory=dict)


# Tag -> cell; and the cells of a row in the order of its fields.
Row = dict[str, str]
Cells = list[str]


def format_value(metric: Metric, value: float | None) -> str:
    """A value in the table's unit; empty for None."""
    if value is None:
        return ""
    return f"{value * metric.scale:.{metric.digits}f}"


def inference_rows(measurements: Iterable[Measurement], layout: Layout) -> list[Row]:
    """One row a phase, every field of METRICS and COLUMNS that it has."""
    measurements = list(measurements)
    fields = _inference_fields(layout, streamed(measurements))
    return [_named(fields, _inference_row(_told(m, layout), fields)) for m in measurements]


def streamed(measurements: Iterable[Measurement]) -> bool:
    """Whether a phase was streamed."""
    return any(m.values.get(STREAM_SIGN) is not None for m in measurements)


def _inference_fields(layout: Layout, streams: bool) -> tuple[str, ...]:
    """The columns of the inference table: those of streams only where a phase was streamed."""
    return _with_own(layout.inference_fields, (*(STREAM_FIELDS if streams else ()), *_own_inference(layout)))


def gpu_rows(measurements: Iterable[Measurement], layout: Layout) -> list[Row]:
    """One row a phase and GPU; a phase without GPU figures has one row that says why."""
    fields = _with_own(layout.gpu_fields, OWN_GPU_FIELDS)
    return [_named(fields, cells) for m in measurements for cells in _gpu_rows(_told(m, layout), fields)]


def server_rows(baselines: Iterable[Baseline], layout: Layout) -> list[Row]:
    """One row a baseline and GPU, or one without; none before a baseline was measured."""
    fields = _with_own(layout.server_fields, OWN_SERVER_FIELDS)
    return [_named(fields, cells) for cells in _server_rows(baselines, fields)]


def _server_rows(baselines: Iterable[Baseline], fields: Sequence[str]) -> Iterator[Cells]:
    for baseline in baselines:
        for key, readings in baseline.gpus.items() or [("", {})]:
            yield _server_row(baseline, key, readings, fields)


def _named(fields: Sequence[str], cells: Cells) -> Row:
    return dict(zip(fields, cells, strict=True))


def _own_inference(layout: Layout) -> tuple[str, ...]:
    """Our own columns, those of an open loop where the job has one."""
    opened = "request_rate" in layout.inference_fields
    *others, status, notes = OWN_INFERENCE_FIELDS
    return (*others, *(OPEN_LOOP_FIELDS if opened else ()), status, notes)


def _with_own(fields: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*fields, *own)))


def format_number(value: float) -> str:
    """Exact, and without an exponent for a whole number."""
    return str(int(value)) if float(value).is_integer() else str(value)


def _about(m: Measurement, constraints: Constraints) -> Row:
    """What both kinds of row say of their phase."""
    load = format_number(m.phase.load.value)
    satisfied = satisfies(m, constraints)
    return {
        "model_name": m.phase.variant.model,
        "batch_size": str(m.phase.batch_size),
        "concurrency": load if m.phase.load.kind == "concurrency" else "",
        "request_rate": load if m.phase.load.kind == "request_rate" else "",
        **{tag: said(m.phase) for tag, said in ASPECTS.items()},
        "model_config_path": m.phase.variant.name,
        "instance_group": m.instance_group or "",
        "max_batch_size": "" if m.max_batch_size is None else str(m.max_batch_size),
        "satisfies_constraints": "" if satisfied is None else "Yes" if satisfied else "No",
        "client_limited": limited(m),
        "status": m.status,
    }


def limited(m: Measurement) -> str:
    """Whether the load generator was the limit, as the tables have it."""
    return "" if m.client_limited is None else "Yes" if m.client_limited else "No"


def standing(m: Measurement) -> str:
    """The status, and that the load generator was the limit, which holds of a row that is ok, too."""
    return f"{m.status}, client limited" if m.client_limited else m.status


class _Told(NamedTuple):
    """What all rows of a phase share. values, reasons: of the phase and its host; GPU metrics are across its GPUs."""

    of: Measurement
    about: Row
    values: Mapping[str, float | None]
    reasons: Mapping[str, str]


def _told(m: Measurement, layout: Layout) -> _Told:
    about = _about(m, layout.constraints.get(m.phase.variant.model, {}))
    return _Told(m, about, {**m.values, **_values(m.host)}, {**m.reasons, **_reasons(m.host)})


def _inference_row(phase: _Told, fields: Sequence[str]) -> Cells:
    m = phase.of
    about = {
        **phase.about,
        "gpu_uuid": " ".join(m.gpus),
        "gpu_model": shown(measured_on(m)),
        "gpu_source": _sources(*m.gpus.values()),
    }
    return _row(fields, about, phase.values, lambda tag: _reason(tag, phase.reasons, m.status), m.notes)


def _gpu_rows(phase: _Told, fields: Sequence[str]) -> Iterator[Cells]:
    """What all GPUs of a phase share is formed once: a store of large hosts has eight rows a phase."""
    m = phase.of
    if not m.gpus:
        yield _row(fields, phase.about, phase.values, lambda tag: _reason(tag, phase.reasons, m.status), m.notes)
        return
    form = _form(tuple(fields))
    shared = [""] * len(fields)
    empty = _fill(shared, form.shared, phase.about, phase.values)
    notes = _notes(form, empty, lambda tag: _reason(tag, phase.reasons, m.status), m.notes)
    for key, readings in m.gpus.items():
        cells, gpu = shared.copy(), m.environment.gpus.get(key)
        about = {"gpu_uuid": key, "gpu_model": gpu.model if gpu else "", "gpu_source": _sources(readings)}
        lacking = _fill(cells, form.of_gpu, about, _values(readings))
        cells[form.notes] = _notes_of_gpu(phase, form, [*empty, *lacking], readings) if lacking else notes
        yield cells


def _notes_of_gpu(phase: _Told, form: _Form, empty: list[int], readings: Mapping[str, Reading]) -> str:
    reasons = {**phase.reasons, **_reasons(readings)}
    return _notes(form, empty, lambda tag: _reason(tag, reasons, phase.of.status), phase.of.notes)


def _server_row(baseline: Baseline, key: str, readings: Mapping[str, Reading], fields: Sequence[str]) -> Cells:
    gpu = baseline.environment.gpus.get(key)
    about = {
        "model_name": SERVER_ONLY_NAME,
        "gpu_uuid": key,
        "gpu_model": gpu.model if gpu else "",
        "gpu_source": _sources(readings),
        "status": "ok",
    }
    everything = {**baseline.host, **readings}
    reasons = _reasons(everything)

    def reason(tag: str) -> str:
        if METRICS[tag].scope == "phase":
            return "the server-only row has no phase"
        return reasons.get(tag) or (baseline.no_gpu_reason if tag in _GPU_TAGS else "") or "not reported"

    return _row(fields, about, _values(everything), reason, baseline.notes)


def _values(readings: Mapping[str, Reading]) -> dict[str, float | None]:
    return {tag: reading.value for tag, reading in readings.items()}


def _reasons(readings: Mapping[str, Reading]) -> dict[str, str]:
    return {tag: reading.reason for tag, reading in readings.items() if reading.reason}


def _sources(*gpus: Mapping[str, Reading]) -> str:
    """Where these GPUs' figures come from, each source once."""
    found: dict[str, None] = {}
    for readings in gpus:
        found |= dict.fromkeys([reading.source for reading in readings.values()])
    found.pop("", None)
    return ", ".join(found)


_GPU_TAGS = frozenset(tag for tag, metric in METRICS.items() if metric.scope == "gpu")


def _reason(tag: str, reasons: Mapping[str, str], status: str) -> str:
    if not METRICS[tag].measured:
        return METRICS[tag].meaning
    if status in ("failed", "skipped") and not reasons:
        return ""  # the notes begin with why the whole phase has no figures
    return reasons.get(tag) or "not reported"


class _Field(NamedTuple):
    """Where it stands in a row. text: how a value is formatted; empty: it is no metric."""

    at: int
    tag: str
    scale: float
    text: str


class _Form(NamedTuple):
    """The fields of a table: all, those that the GPUs of a phase share, those of a GPU; and where the notes stand."""

    fields: tuple[_Field, ...]
    shared: tuple[_Field, ...]
    of_gpu: tuple[_Field, ...]
    notes: int


_GPU_FIELDS = _GPU_TAGS | {"gpu_uuid", "gpu_model", "gpu_source"}


@lru_cache
def _form(tags: tuple[str, ...]) -> _Form:
    fields = tuple(
        _Field(at, tag, METRICS[tag].scale, f"%.{METRICS[tag].digits}f") if tag in METRICS else _Field(at, tag, 1.0, "")
        for at, tag in enumerate(tags)
    )
    of_gpu = tuple(field for field in fields if field.tag in _GPU_FIELDS)
    shared = tuple(field for field in fields if field.tag not in _GPU_FIELDS)
    return _Form(fields, shared, of_gpu, tags.index("notes"))


def _row(
    tags: Sequence[str],
    about: Row,
    values: Mapping[str, float | None],
    reason: Callable[[str], str],
    notes: Sequence[str],
) -> Cells:
    form = _form(tuple(tags))
    cells = [""] * len(form.fields)
    empty = _fill(cells, form.fields, about, values)
    cells[form.notes] = _notes(form, empty, reason, notes)
    return cells


def _fill(cells: Cells, fields: Sequence[_Field], about: Row, values: Mapping[str, float | None]) -> list[int]:
    """Fill these fields; where those stand of which there is no value."""
    empty = []
    for at, tag, scale, text in fields:
        if not text:
            cells[at] = about.get(tag, "")
        elif (value := values.get(tag)) is not None:
            cells[at] = text % (value * scale)
        else:
            empty.append(at)
    return empty


def _notes(form: _Form, empty: Iterable[int], reason: Callable[[str], str], notes: Sequence[str]) -> str:
    """The notes of a row, and the reason of each empty metric, equal reasons together."""
    tags = (form.fields[at].tag for at in sorted(empty))
    absent = told_together((METRICS[tag].header, why) for tag in tags if (why := reason(tag)))
    return " | ".join((*(note for note in notes if note not in absent), *absent.values()))


def to_csv(fields: Sequence[str], rows: Iterable[Row]) -> str:
    """RFC 4180 text with a header line; `fields` in order."""
    return _text([[header(tag) for tag in fields], *([row[tag] for tag in fields] for row in rows)])


def _text(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def write_csvs(
    export_path: Path, layout: Layout, measurements: Sequence[Measurement], baselines: Sequence[Baseline]
) -> None:
    """Rewrite the three CSV files, each atomically, from one pass over the measurements. Raises ExportPathError.

    A second pass is made where a phase was streamed, whose columns the others have, too.
    """
    plain, gpu_fields = _inference_fields(layout, streams=False), _with_own(layout.gpu_fields, OWN_GPU_FIELDS)
    # Only text is kept: a measurement is read from the store as the table comes to it.
    inference, gpu, streams = [], [], False
    for some in _batched(measurements, BATCH):
        phases = [_told(m, layout) for m in some]
        gpu.append(_text(chain.from_iterable(_gpu_rows(phase, gpu_fields) for phase in phases)))
        inference.append(_text(_inference_row(phase, plain) for phase in phases))
        streams = streams or streamed(some)
    fields = _inference_fields(layout, streams)
    if streams:
        inference = [_text(_inference_row(_told(m, layout), fields) for m in measurements)]
    server_fields = _with_own(layout.server_fields, OWN_SERVER_FIELDS)
    server = _text(_server_rows(baselines, server_fields))
    for name, columns, texts in (
        (layout.filename_inference, fields, inference),
        (layout.filename_gpu, gpu_fields, gpu),
        (layout.filename_server, server_fields, [server]),
    ):
        write_atomically(export_path / name, chain([to_csv(columns, [])], texts), export_path)


def _batched(measurements: Iterable[Measurement], size: int) -> Iterator[list[Measurement]]:
    left = iter(measurements)
    while some := list(islice(left, size)):
        yield some


def summary(console: Console, measurements: Iterable[Measurement], layout: Layout) -> None:
    """Print what a person wants to see first; from one pass over the measurements."""
    table = Table(title="Results", header_style="bold", pad_edge=False)
    columns, rows, shown = _summary_columns(layout), [], {""}
    for m in measurements:
        rows.append([cell(m) for _, cell, _ in columns])
        shown |= {"streams"} if streamed([m]) else set()
        shown |= {"gpus"} if m.gpus else set()
    for column, _, where in columns:
        if where in shown:
            table.add_column(
                column, justify="left" if column in ("Variant", "Status") else "right", no_wrap=column != "Status"
            )
    for row in rows:
        table.add_row(*(text for text, (_, _, where) in zip(row, columns, strict=True) if where in shown))
    console.print(table)


def _summary_columns(layout: Layout) -> list[tuple[str, Callable[[Measurement], str], str]]:
    """Header, cell, and where the column is shown: only with `streams`, only with `gpus`, or always."""

    def metric(tag: str) -> Callable[[Measurement], str]:
        return lambda m: format_value(METRICS[tag], m.values.get(tag)) or "-"

    def rate(tag: str) -> Callable[[Measurement], str]:
        def cell(m: Measurement) -> str:
            value, half = m.values.get(tag), m.values.get(f"{tag}_ci")
            if value is None:
                return "-"
            return f"{value:,.1f}" + (f" ±{half / value:.0%}" if half is not None and value else "")

        return cell

    def load(m: Measurement) -> str:
        return format_number(m.phase.load.value) + ("/s" if m.phase.load.kind == "request_rate" else "")

    def fits(m: Measurement) -> str:
        return _about(m, layout.constraints.get(m.phase.variant.model, {}))["satisfies_constraints"]

    return [
        ("Variant", lambda m: m.phase.variant.name, ""),
        ("Batch", lambda m: str(m.phase.batch_size), ""),
        ("Load", load, ""),
        ("infer/s", rate("perf_throughput"), ""),
        ("p50 ms", metric("perf_latency_p50"), ""),
        ("p99 ms", metric("perf_latency_p99"), ""),
        ("first ms", metric("time_to_first_token_p50"), "streams"),
        ("gap ms", metric("inter_token_latency_p50"), "streams"),
        ("resp/s", rate(STREAM_SIGN), "streams"),
        ("GPU %", metric("gpu_utilization_max"), "gpus"),
        ("Mem %", metric("gpu_memory_utilization_max"), "gpus"),
        ("GPU MB", metric("gpu_used_memory_max"), "gpus"),
        *([("Fits", fits, "")] if any(layout.constraints.values()) else []),
        ("Status", _status, ""),
    ]


def _status(m: Measurement) -> str:
    """The status and its first reason, which may be a model's whole traceback: the tables have all of it."""
    if m.status == "ok" or not m.notes:
        return standing(m)
    return f"{standing(m)}: {shorten(m.notes[0], SHOWN_REASON, placeholder=' ...')}"
