"""How a run ends: the exit code, and why it is not 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model_analyzer.core.measurement import Measurement
from model_analyzer.core.select import Constraints, satisfies
from model_analyzer.errors import CONSTRAINTS_UNMET, PHASES_FAILED


def ending(measurements: Iterable[Measurement], constraints: Mapping[str, Constraints]) -> tuple[int, list[str]]:
    """The exit code and why, in a line; 0 and none where all is well. One pass: rows may be read from a store as they come.

    constraints: model name -> bounds. 4: some phases failed. 5: nothing satisfies the constraints.
    """
    count = failures = 0
    first = ""
    satisfied = not any(constraints.values())
    for each in measurements:
        count += 1
        if each.status == "failed":
            failures += 1
            first = first or f"{each.phase}: {each.notes[0] if each.notes else 'no reason is known'}"
        satisfied = satisfied or bool(satisfies(each, constraints.get(each.phase.variant.model, {})))
    if failures:
        return PHASES_FAILED, [f"{failures} of {count} phases failed, the first one {' '.join(first.split())}"]
    if not satisfied:
        return CONSTRAINTS_UNMET, [f"none of {count} phases satisfies the constraints; the tables show by how much"]
    return 0, []
