"""What a run took beside its measured seconds, read from its store: `python bench/run_times.py results/quickstart`.

The guesses of `core/estimate.py` (SLICE_OVERHEAD_S, VARIANT_S, SERVER_S) were read so. Medians over the last run of the
folder: of a slice all but its measured seconds (warm-up, scrapes, drain, the store) up to the next; of a variant what lies between
the last slice of the one before and its own first; of the server from its start to its first answer, as its log and the baseline tell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

Record = dict[str, Any]


def last_run(store: Path) -> list[Record]:
    """The records since the last run began, oldest first."""
    records = [json.loads(line) for line in store.read_text("utf-8").splitlines()]
    begins = [n for n, record in enumerate(records) if record["kind"] == "run"]
    return records[begins[-1] :] if begins else []


def times(records: list[Record]) -> dict[str, list[float]]:
    """What each slice, each load of a variant and the server's start took, in seconds; what cannot be told is not there."""
    variants = {
        record["data"]["phase"]["id"]: record["data"]["phase"]["variant"]["name"]
        for record in records
        if record["kind"] == "measurement"
    }
    slices = [record["data"] for record in records if record["kind"] == "slice"]
    found: dict[str, list[float]] = {"slice": [], "variant": [], "server": list(_server(records))}
    for before, after in pairwise(slices):
        took_s = (_at(after["started_at"]) - _at(before["started_at"])).total_seconds() - _measured_s(before)
        same = variants.get(before["phase_id"]) == variants.get(after["phase_id"])
        if same and before["repeat"] == after["repeat"]:
            found["slice"].append(took_s)
        else:
            # What a slice takes beside its own seconds is in it, too.
            found["variant"].append(took_s)
    usual = median(found["slice"]) if found["slice"] else 0.0
    found["variant"] = [max(0.0, took_s - usual) for took_s in found["variant"]]
    return found


def _server(records: list[Record]) -> Iterator[float]:
    """From the start of the run to the baseline's, which follows the server's first answer; whole seconds."""
    begun = _at(records[0]["data"]["at"]) if records else None
    for record in records:
        if record["kind"] == "baseline" and begun is not None:
            ended, watched = _at(record["data"]["finished_at"]), timedelta(seconds=record["data"]["seconds"])
            yield max(0.0, (ended - watched - begun).total_seconds())


def _measured_s(piece: Record) -> float:
    return float(piece["stats"]["duration_ns"]) / 1e9


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def main() -> None:
    """Print the medians of a folder's last run."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, seconds in times(last_run(Path(sys.argv[1]) / "measurements.jsonl")).items():
        told = f"{median(seconds):.2f} s, median of {len(seconds)}" if seconds else "not to be told from this run"
        print(f"{name}: {told}")


if __name__ == "__main__":
    main()
