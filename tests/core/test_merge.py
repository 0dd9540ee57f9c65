"""Several stores as one run: order, which of two rows stays, what is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adapters.measured import baseline, measured, phase

from model_analyzer.core.measurement import Environment, Measurement
from model_analyzer.core.merge import Part, merge, union_order
from model_analyzer.core.plan import Phase
from model_analyzer.core.reduce import failed
from model_analyzer.core.telemetry import Gpu

L4, A100 = "NVIDIA L4", "NVIDIA A100-SXM4-80GB"
ONE, TWO, THREE = phase(load=1), phase(load=2), phase(load=4)
PLAN = [each.id for each in (ONE, TWO, THREE)]


def on(gpu_type: str, of: Phase, at: str = "10:00", rate: int = 100) -> Measurement:
    return replace(
        measured(of, rate, gpu="GPU-a"), finished_at=at, environment=Environment(gpus={"GPU-a": Gpu(gpu_type)})
    )


def here(*types: str) -> frozenset[str]:
    return frozenset(types)


@pytest.mark.parametrize(
    ("plans", "order"),
    [
        ([["a", "b", "c"]], "abc"),
        ([["a", "b", "c"], ["a", "b", "c"]], "abc"),
        ([["a", "c"], ["a", "b", "c", "d"]], "abcd"),
        ([["b"], ["a", "b"]], "ab"),
        ([["a", "b"], ["x", "y"]], "abxy"),
        ([["a", "b"], ["b", "a"]], "ab"),
        ([["a", "b"], [], ["b", "x"]], "abx"),
        ([[], ["a"]], "a"),
        ([["a", "a", "b"]], "ab"),
    ],
)
def test_the_first_plans_order_holds_and_others_phases_follow_what_they_follow_there(
    plans: list[list[str]], order: str
) -> None:
    assert union_order(plans) == tuple(order)


def test_shards_make_the_rows_of_one_run_in_its_order() -> None:
    parts = [Part.of(PLAN, [measured(THREE), measured(ONE)]), Part.of(PLAN, [measured(TWO)])]
    for given in (parts, parts[::-1]):
        merged = merge(given)
        assert [m.phase for m in merged.measurements] == [ONE, TWO, THREE]
        assert (merged.plan, merged.missing) == (tuple(PLAN), ())


def test_of_two_rows_on_one_type_the_later_finished_stays_and_any_with_figures_before_a_failed_one() -> None:
    early, late = on(L4, ONE, "10:00"), on(L4, ONE, "11:00", rate=200)
    broken = replace(failed(ONE, "it died"), finished_at="12:00", environment=early.environment)
    for rows in ([early, late, broken], [broken, late, early], [late, broken, early]):
        assert merge([Part.of(PLAN, rows)]).measurements == (late,)
        assert merge([Part.of(PLAN, [row]) for row in rows]).measurements == (late,)


def test_rows_of_several_types_are_all_kept_in_the_order_of_the_parts() -> None:
    parts = [
        Part.of(PLAN, [on(L4, ONE), on(L4, TWO)], here=here(L4)),
        Part.of(PLAN, [on(A100, TWO), on(A100, ONE)], here=here(A100)),
    ]
    merged = merge(parts)
    assert merged.measurements == (on(L4, ONE), on(A100, ONE), on(L4, TWO), on(A100, TWO))
    assert merged.gpu_types == (L4, A100)


def test_a_phase_that_failed_before_its_hardware_was_known_is_no_row_beside_one_that_was_measured() -> None:
    unknown = replace(failed(ONE, "no server"), finished_at="12:00")
    assert merge([Part.of(PLAN, [on(L4, ONE), unknown])]).measurements == (on(L4, ONE),)
    assert merge([Part.of(PLAN, [unknown])]).measurements == (unknown,)


def test_what_no_plan_asks_for_is_no_row() -> None:
    assert merge([Part.of([ONE.id], [measured(ONE), measured(TWO)])]).measurements == (measured(ONE),)


def test_missing_is_what_no_part_has_measured_on_that_hardware() -> None:
    half = Part.of(PLAN, [on(A100, ONE)], here=here(A100))
    assert merge([Part.of(PLAN, [on(L4, each) for each in (ONE, TWO, THREE)], here=here(L4)), half]).missing == (
        TWO.id,
        THREE.id,
    )
    rest = Part.of(PLAN, [on(A100, TWO), on(A100, THREE)], here=here(A100))
    assert merge([half, rest]).missing == ()


def test_missing_is_filled_by_any_part_where_no_hardware_is_known() -> None:
    assert merge([Part.of(PLAN, [measured(ONE)]), Part.of(PLAN, [measured(THREE)])]).missing == (TWO.id,)


def test_a_row_on_other_hardware_than_the_runs_is_kept_and_leaves_a_hole() -> None:
    merged = merge([Part.of([ONE.id], [on(L4, ONE)], here=here(A100))])
    assert (merged.measurements, merged.missing) == ((on(L4, ONE),), (ONE.id,))


def test_baselines_are_one_for_each_set_of_gpus_the_last_of_it() -> None:
    def at(time: str, *gpus: str):
        return replace(baseline(dict.fromkeys(gpus, 1e9)), finished_at=time)

    cpus = [Part.of([], [], [at("10:00")]), Part.of([], [], [at("11:00")])]
    assert merge(cpus).baselines == (at("11:00"),), "a CPU's tell nothing apart: one row, as a single run has"
    gpus = [Part.of([], [], [at("10:00", "GPU-a")]), Part.of([], [], [at("10:01", "GPU-b")])]
    assert merge(gpus).baselines == (at("10:00", "GPU-a"), at("10:01", "GPU-b"))


def test_a_row_of_fewer_repeats_than_asked_is_missing_and_marked_and_more_repeats_win() -> None:
    one = replace(measured(ONE), repeats=1, finished_at="11:00")
    three = replace(measured(ONE), repeats=3, finished_at="10:00")
    alone = merge([Part.of([ONE.id], [one], asked=3), Part.of([ONE.id], [one], asked=3)])
    assert alone.missing == (ONE.id,)
    assert alone.measurements[0].notes[0].startswith("unfinished: 1 of 3 repeats")
    merged = merge([Part.of([ONE.id], [one], asked=3), Part.of([ONE.id], [three], asked=3)])
    assert (merged.measurements, merged.missing) == ((three,), ())
