"""What a run need not measure again, and what it has to, as it finds its own store and those beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from model_analyzer.adapters import store
from model_analyzer.core.hardware import holds, shown
from model_analyzer.core.plan import Phase
from model_analyzer.core.repeats import enough
from model_analyzer.core.wording import counted
from model_analyzer.errors import ExportPathError

MOST_NAMED = 3


def take_over(
    opened: store.JsonlStore, beside: Iterable[Path], phase_ids: Sequence[str], baseline_id: str
) -> list[str]:
    """Copy into the open store what other stores of the same run have finished here; what to say of it.

    beside: folders of stores, read without their locks: another shard may be writing there. One that cannot be read
    costs only what it holds. Raises ExportPathError where ours cannot be written.
    """
    said, taken, wanted, asked = [], 0, frozenset(phase_ids), opened.contents.asked
    for folder in beside:
        if folder == opened.path.parent:
            continue
        try:
            other = store.read(folder)
        except ExportPathError as error:
            said.append(f"{error}; what it holds is measured again")
            continue
        other.here = opened.contents.here
        ours, theirs = opened.contents.outcomes, other.measurements
        for phase_id, outcome in other.outcomes.items():
            # One of fewer repeats is of no use without its slices, which stay where they are.
            if phase_id in wanted and enough(outcome, asked) and not enough(ours.get(phase_id), asked):
                opened.add_measurement(theirs[phase_id])
                taken += 1
        if phase_ids and baseline_id in other.baselines and baseline_id not in opened.contents.baselines:
            opened.add_baseline(other.baselines[baseline_id])
    if taken:
        said.append(
            f"{taken} phases were measured by other shards of this run, or by a run with another number of them"
        )
    return said


def goes_on(contents: store.Contents, phases: Sequence[Phase], done: Mapping[str, int]) -> list[str]:
    """What to say of phases that an earlier run began: their slices are used. done: phase id -> repeats that are whole."""
    begun = [
        (phase, count)
        for phase in phases
        if (count := sum(piece.repeat >= done[phase.id] for piece in contents.pieces.get(phase.id, ())))
    ]
    if not begun:
        return []
    named = [f"{phase} from {counted(count, 'slice')}" for phase, count in begun[:MOST_NAMED]]
    more = f", and {len(begun) - MOST_NAMED} more" if len(begun) > MOST_NAMED else ""
    what = (
        "1 phase that an earlier run began goes on"
        if len(begun) == 1
        else f"{len(begun)} phases that an earlier run began go on"
    )
    return [f"{what}: {', '.join(named)}{more}"]


def elsewhere(contents: store.Contents, phase_ids: Sequence[str]) -> list[str]:
    """What to say of phases that were measured on other GPU types only."""
    here, measured, wanted = contents.here, contents.outcomes, frozenset(phase_ids)
    aside = [key for key in contents.rows if key[0] in wanted and key[0] not in measured and not holds(key[1], here)]
    if not aside:
        return []
    count = len({phase_id for phase_id, _ in aside})
    types = ", ".join(dict.fromkeys(shown(types) for _, types in aside))
    what = f"{count} phases were measured on {types}; this is {shown(here)}"
    return [f"{what}: measured again here; the others stay in the store"]
