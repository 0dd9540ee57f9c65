"""Results from stores alone: what a run set out to do, what there is, and several runs made one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from model_analyzer.adapters import comparison, store, tables
from model_analyzer.adapters.files import write_atomically
from model_analyzer.core.apart import apart
from model_analyzer.core.comparison import Compared, compare
from model_analyzer.core.measurement import Baseline, Measurement
from model_analyzer.core.merge import Merged, Part, merge
from model_analyzer.core.repeats import as_asked, unfinished
from model_analyzer.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Stored:
    """The last run of a store: what it set out to do, and what there is.

    missing: how many phases are not measured, or not as often as asked; unfinished: how many of them are begun. gpu_types:
    of a merged store, in order; None: it is no merged one.
    """

    layout: tables.Layout
    phase_ids: tuple[str, ...]
    measurements: Sequence[Measurement]
    missing: int
    unfinished: int
    baselines: tuple[Baseline, ...]
    at: str
    gpu_types: tuple[str, ...] | None = None
    asked: int = 1

    def statuses(self) -> dict[str, int]:
        """Status -> how many rows."""
        return dict(Counter(m.status for m in self.measurements if not unfinished(m, self.asked)))

    def comparison(self) -> list[Compared]:
        """Equal phases side by side; of a merged store."""
        return compare(self.measurements, self.layout.prices, self.gpu_types or ())


def read_stored(export_path: Path) -> Stored:
    """Raises ExportPathError, or SpecError where nothing was ever stored."""
    contents = store.read(export_path)
    if not contents.runs:
        if store.stores_of(export_path):
            fix = f"make one of them: model-analyzer merge {export_path} -o FOLDER"
            raise SpecError(str(export_path), "holds the shards of a run", fix)
        raise _no_store(export_path)
    run = contents.runs[-1]
    ids = tuple(run["phases"])
    layout = msgspec.convert(run["layout"], tables.Layout)
    if _is_merged(run):
        rows, server_only = store.Ordered(contents.rows, list(contents.rows)), tuple(contents.server_only.values())
        return Stored(layout, ids, rows, len(run["missing"]), 0, server_only, run["at"], tuple(run["order"]))
    measured, outcomes, baselines = contents.measurements, contents.outcomes, contents.baselines
    asked = int(run.get("repeats", 1))
    left = [i for i in ids if i not in outcomes or unfinished(outcomes[i], asked)]
    return Stored(
        layout,
        ids,
        store.Ordered(measured, [i for i in ids if i in outcomes], lambda m: as_asked(m, asked)),
        len(left),
        sum(1 for i in left if i in outcomes or i in contents.pieces),
        tuple(baselines[i] for i in [run["baseline"]] if i in baselines),
        run["at"],
        asked=asked,
    )


def rebuild_tables(export_path: Path) -> Stored:
    """Rewrite the CSV files from the store."""
    stored = read_stored(export_path)
    tables.write_csvs(export_path, stored.layout, stored.measurements, stored.baselines)
    if stored.gpu_types is not None:
        write_atomically(export_path / comparison.FILENAME, comparison.to_csv(stored.comparison()), export_path)
    return stored


def _no_store(folder: Path) -> SpecError:
    return SpecError(str(folder), "holds no measurements", "name the export path of a run")


def _is_merged(run: Mapping[str, Any]) -> bool:
    return "order" in run


def own_run(folder: Path) -> str | None:
    """When the last run that was measured into this very folder began; None where none was, or it holds a merge."""
    runs = store.read(folder).runs
    return str(runs[-1]["at"]) if runs and not _is_merged(runs[-1]) else None


# -- several stores as one -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    """One export path with all its shards. record: that of its last run."""

    folder: Path
    part: Part
    record: Mapping[str, Any]
    layout: tables.Layout


def merge_stores(folders: Sequence[Path], out: Path, at: str, version: str) -> tuple[Stored, list[Fault]]:
    """Make one store and one set of tables in `out`; what is there now, and what a user should know.

    folders: stores, shards, or export paths that contain shards. at: the time of now.
    Raises SpecError where one holds nothing, or `out` is a run's own; ExportPathError.
    """
    runs = [_read_run(folder, stores) for folder, stores in _by_run(folders, out).items()]
    if own_run(out) is not None:
        raise SpecError(str(out), "holds a run of its own, which a merge would replace", "name another folder with -o")
    merged = merge([run.part for run in runs])
    differ = apart(m.phase for m in merged.measurements)
    layout, warnings = _one_layout(runs, (*(["gpu_model"] if len(merged.gpu_types) > 1 else []), *differ))
    store.write_whole(out, merged.measurements, merged.baselines, _record(merged, layout, at, version))
    return rebuild_tables(out), warnings


def _by_run(folders: Iterable[Path], out: Path) -> dict[Path, list[Path]]:
    """Export path -> the folders of its stores that were named. Raises SpecError."""
    found: dict[Path, list[Path]] = {}
    for given in folders:
        folder = given.absolute()
        stores = [each for each in store.stores_of(folder) if each != out.absolute()]
        if not stores and folder == out.absolute():
            raise SpecError(str(given), "is to be merged into itself", "name another folder with -o")
        if not stores:
            raise _no_store(given)
        is_shard = re.fullmatch(rf"{store.SHARD}\d+", folder.name)
        known = found.setdefault(folder.parent if is_shard else folder, [])
        known += [each for each in stores if each not in known]
    return found


def _read_run(folder: Path, stores: Sequence[Path]) -> _Run:
    """Its last plan decides what belongs to it: a shard of another number of shards holds what is not asked for now."""
    opened = [contents for contents in map(store.read, stores) if contents.runs]
    if not opened:
        raise _no_store(folder)
    # What was merged into an export path is made of the shards beside it.
    own = [contents for contents in opened if not _is_merged(contents.runs[-1])] or opened
    record = max((contents.runs[-1] for contents in own), key=lambda run: str(run["at"]))
    plan = _plan(record)
    part = Part.of(
        plan,
        (m for contents in own for m in contents.rows.values()),
        (b for contents in own for b in contents.server_only.values() if b.id == record["baseline"] or own is opened),
        frozenset(t for contents in own if _plan(contents.runs[-1]) == plan for t in contents.runs[-1].get("gpu_types", ())),
        int(record.get("repeats", 1)),
    )  # fmt: skip
    if _is_merged(record):
        part = replace(part, holes=frozenset(record["missing"]))
    return _Run(folder, part, record, msgspec.convert(record["layout"], tables.Layout))


def _plan(record: Mapping[str, Any]) -> list[str]:
    """Of a shard the whole run's."""
    plan: list[str] = record.get("plan") or record["phases"]
    return plan


def _record(merged: Merged, layout: tables.Layout, at: str, version: str) -> dict[str, Any]:
    return {
        "version": version,
        "at": at,
        "phases": merged.plan,
        "baseline": merged.baselines[0].id if merged.baselines else "",
        "layout": asdict(layout),
        "order": merged.gpu_types,
        "missing": merged.missing,
    }


def _one_layout(runs: Sequence[_Run], telling: tuple[str, ...]) -> tuple[tables.Layout, list[Fault]]:
    """The first run's file names, and what it says of a model or price; every run's columns, models and prices.

    telling: columns that tell rows apart which are alike without them.
    """
    first, *others = runs
    layout, warnings = first.layout, []
    for run in others:
        other = run.layout
        differ = [
            name
            for name, one, two in (
                ("output fields", _fields(first.layout), _fields(other)),
                ("file names", _names(first.layout), _names(other)),
                ("constraints", first.layout.constraints, other.constraints),
                ("gpu_prices", first.layout.prices, other.prices),
            )
            if one != two
        ]
        if differ:
            what = f"{', '.join(differ)} differ from those of {first.folder}"
            warnings.append(Fault(str(run.folder), what, "the first ones hold, the others are added to them"))
        layout = replace(
            layout,
            inference_fields=_union(layout.inference_fields, other.inference_fields),
            gpu_fields=_union(layout.gpu_fields, other.gpu_fields),
            server_fields=_union(layout.server_fields, other.server_fields),
            constraints={**other.constraints, **layout.constraints},
            prices={**other.prices, **layout.prices},
        )
    layout = replace(
        layout,
        inference_fields=_union(layout.inference_fields, telling),
        gpu_fields=_union(layout.gpu_fields, telling),
        server_fields=_union(layout.server_fields, [tag for tag in telling if tag == "gpu_model"]),
    )
    return layout, warnings


def _fields(layout: tables.Layout) -> tuple[tuple[str, ...], ...]:
    return layout.inference_fields, layout.gpu_fields, layout.server_fields


def _names(layout: tables.Layout) -> tuple[str, ...]:
    return layout.filename_inference, layout.filename_gpu, layout.filename_server


def _union(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))
