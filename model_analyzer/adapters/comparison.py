"""The comparison table: a row for each phase and GPU type, as a CSV file and on the console."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from model_analyzer.adapters.tables import format_number, format_value, limited, standing, streamed
from model_analyzer.core.apart import ASPECTS, apart
from model_analyzer.core.comparison import Compared
from model_analyzer.core.metric import METRICS, header
from model_analyzer.core.wording import told_together

FILENAME = "metrics-comparison.csv"
# What names a phase, before what else tells some apart.
NAMED_BY = ("model_name", "model_config_path", "batch_size", "concurrency", "request_rate")
# The figures of the table, and how each is called where space is short; "": it is in the file only.
FIGURES = {
    "perf_throughput": "infer/s",
    "perf_throughput_ci": "+-",
    "perf_latency_p99": "p99 ms",
    "gpu_used_memory_max": "GPU MB",
    "gpu_utilization": "GPU %",
    "energy_per_inference": "J/infer",
    "energy_per_inference_ci": "+-",
}
# Behind them, where a phase was streamed.
STREAM_FIGURES = {
    "time_to_first_token_avg": "first ms",
    "time_to_first_token_avg_ci": "",
    "time_to_first_token_p99": "",
    "time_to_first_token_p99_ci": "",
    "inter_token_latency_avg": "gap ms",
    "inter_token_latency_avg_ci": "",
    "inter_token_latency_p99": "",
    "inter_token_latency_p99_ci": "",
    "output_token_throughput": "resp/s",
    "output_token_throughput_ci": "+-",
}
# What is to be known of a row, after the figures.
KNOWN_BY = ("client_limited", "status", "notes")
COST = "Cost per Million Inferences"
COST_DIGITS = 6
UNKNOWN_TYPE = "unknown"


def to_csv(rows: Sequence[Compared]) -> str:
    """RFC 4180 text with a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    telling, figures = _telling(rows), _figures(rows)
    about = [header(tag) for tag in (*NAMED_BY, *telling)]
    writer.writerow([*about, "GPU Type", "GPUs", *map(header, figures), COST, *map(header, KNOWN_BY)])
    for row in rows:
        m, load = row.measurement, row.measurement.phase.load
        value = format_number(load.value)
        writer.writerow(
            [
                m.phase.variant.model,
                m.phase.variant.name,
                m.phase.batch_size,
                value if load.kind == "concurrency" else "",
                value if load.kind == "request_rate" else "",
                *(ASPECTS[tag](m.phase) for tag in telling),
                row.gpu_type,
                row.gpus or "",
                *(format_value(METRICS[tag], m.values.get(tag)) for tag in figures),
                _cost(row),
                limited(m),
                m.status,
                _notes(row, figures),
            ]
        )
    return out.getvalue()


def _telling(rows: Sequence[Compared]) -> tuple[str, ...]:
    """The columns without which phases that are not equal would look so."""
    return apart(row.measurement.phase for row in rows)


def _figures(rows: Sequence[Compared]) -> Mapping[str, str]:
    return {**FIGURES, **(STREAM_FIGURES if streamed(row.measurement for row in rows) else {})}


def _cost(row: Compared) -> str:
    return "" if row.cost is None else f"{row.cost:.{COST_DIGITS}f}"


def _notes(row: Compared, figures: Mapping[str, str]) -> str:
    """The row's own notes, and why a cell is empty; equal reasons together."""
    m = row.measurement
    empty = [(header(tag), m.reasons[tag]) for tag in figures if m.values.get(tag) is None and tag in m.reasons]
    if not row.gpu_type:
        empty.append(("GPU Type", "no DCGM exporter said which GPU it was"))
    if row.cost is None:
        empty.append((COST, row.no_cost))
    return " | ".join((*m.notes, *told_together(empty).values()))


def show(console: Console, rows: Sequence[Compared]) -> None:
    """Print the comparison; a phase is named once, in front of its GPU types."""
    table = Table(title="Comparison", header_style="bold", pad_edge=False)
    telling, figures = _telling(rows), {tag: short for tag, short in _figures(rows).items() if short}
    asked = [header(tag) for tag in telling]
    for column in ("Variant", "Batch", "Load", *asked, "GPU type", "GPUs", *figures.values(), "Cost/million", "Status"):
        left = column in ("Variant", *asked, "GPU type", "Status")
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "Status")
    before: tuple[str, ...] = ()
    for row in rows:
        m, load = row.measurement, row.measurement.phase.load
        rate = "/s" if load.kind == "request_rate" else ""
        named = (
            m.phase.variant.name,
            str(m.phase.batch_size),
            format_number(load.value) + rate,
            *(ASPECTS[tag](m.phase) for tag in telling),
        )
        table.add_row(
            *(named if named != before else [""] * len(named)),
            row.gpu_type or UNKNOWN_TYPE,
            str(row.gpus or "-"),
            *(format_value(METRICS[tag], m.values.get(tag)) or "-" for tag in figures),
            _cost(row) or "-",
            standing(m),
        )
        before = named
    console.print(table)
