"""When a row says that a hypervisor took CPU time, and how much."""

from __future__ import annotations

import pytest

from model_analyzer.core.steal import CpuTime, cpu_between, steal_notes

SECOND_NS = 1_000_000_000


def cpu(wanted_s: float, stolen_s: float) -> CpuTime:
    return CpuTime(round(wanted_s * SECOND_NS), round(stolen_s * SECOND_NS))


def test_a_share_that_shows_is_told_with_what_to_do() -> None:
    (note,) = steal_notes([(cpu(1.0, 0.0), 0.5), (cpu(1.0, 0.12), 0.5)])
    assert note == (
        "the hypervisor took 6% of the CPU time that this machine wanted (steal): measure again later, or on a dedicated host"
    )


@pytest.mark.parametrize(
    ("wanted_s", "stolen_s", "told"),
    [
        (20.0, 0.0, False),
        (20.0, 0.5, False),
        (20.0, 0.6, True),
        (20.0, 20.0, True),
        (0.0, 0.0, False),
        # A third of what a machine wants whose CPUs have nothing to do: nothing was held up by more than 1 %.
        (0.3, 0.1, False),
        (0.6, 0.3, True),
    ],
)
def test_it_is_told_from_a_share_on_of_what_was_wanted_and_of_the_time(
    wanted_s: float, stolen_s: float, told: bool
) -> None:
    assert bool(steal_notes([(cpu(wanted_s, stolen_s), 10.0)])) is told


def test_it_is_the_share_of_the_whole_phase_and_not_of_one_slice() -> None:
    worst = [(cpu(1.0, 0.17), 0.5)]
    assert steal_notes(worst)
    assert not steal_notes([*worst, *[(cpu(1.0, 0.0), 0.5)] * 9])


def test_slices_that_do_not_know_are_left_out() -> None:
    (note,) = steal_notes([(None, 5.0), (cpu(1.0, 0.1), 0.5)])
    assert "took 10%" in note
    assert not steal_notes([(None, 5.0)])
    assert not steal_notes([])


@pytest.mark.parametrize(
    ("before", "after", "between"),
    [
        (cpu(5, 1), cpu(7, 1.5), cpu(2, 0.5)),
        (cpu(5, 1), cpu(5, 1), cpu(0, 0)),
        (cpu(5, 1), cpu(7, 0.5), None),
        (cpu(5, 1), cpu(4, 1), None),
        (None, cpu(7, 1), None),
        (cpu(5, 1), None, None),
    ],
)
def test_a_reading_that_is_missing_or_fell_is_not_known(
    before: CpuTime | None, after: CpuTime | None, between: CpuTime | None
) -> None:
    assert cpu_between(before, after) == between
