"""Shards: together they are the plan, each variant is in one of them, and every run comes to the same."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from model_analyzer.core.load import InputSource, Load
from model_analyzer.core.plan import Group, Phase
from model_analyzer.core.shard import assign, share
from model_analyzer.core.variant import Variant


def groups(sizes: Sequence[int]) -> tuple[Group, ...]:
    """A group of so many phases each."""
    made = []
    for number, size in enumerate(sizes):
        variant = Variant(f"m{number}", f"m{number}_config_default")
        loads = [Load("concurrency", load) for load in range(1, size + 1)]
        phases = tuple(Phase(f"{number}-{x.value}", variant, 1, x, InputSource(), "http") for x in loads)
        made.append(Group(variant, phases))
    return tuple(made)


@pytest.mark.parametrize(
    ("sizes", "shards", "expected"),
    [
        ([4, 4, 4], 3, (0, 1, 2)),
        ([4, 4, 4, 4], 2, (0, 1, 0, 1)),
        ([9, 1, 1, 1, 8], 2, (0, 1, 1, 1, 1)),
        ([1, 2, 3, 4], 3, (0, 1, 2, 0)),
        ([5], 3, (0,)),
        ([], 2, ()),
        ([3, 3], 1, (0, 0)),
    ],
)
def test_a_group_goes_to_the_shard_with_the_fewest_phases_of_several_to_the_lowest(
    sizes: list[int], shards: int, expected: tuple[int, ...]
) -> None:
    assert assign(groups(sizes), shards) == expected


@pytest.mark.parametrize("seed", range(30))
def test_shards_are_a_partition_in_plan_order_and_as_even_as_whole_groups_allow(seed: int) -> None:
    chance = random.Random(seed)
    plan = groups([chance.randint(1, 20) for _ in range(chance.randint(0, 25))])
    shards = chance.randint(1, 9)
    parts = [share(plan, shards, index) for index in range(shards)]
    together = [group for part in parts for group in part]
    assert sorted(together, key=plan.index) == list(plan)
    for part in parts:
        assert list(part) == sorted(part, key=plan.index)
    phases = [sum(len(group.phases) for group in part) for part in parts]
    largest = max((len(group.phases) for group in plan), default=0)
    assert max(phases) - min(phases) <= largest


def test_what_was_assigned_stays_when_the_plan_grows_at_its_end() -> None:
    few, many = groups([3, 5, 2]), groups([3, 5, 2, 7, 1])
    assert assign(many, 2)[:3] == assign(few, 2)


def test_more_shards_than_variants_leave_the_surplus_with_nothing() -> None:
    assert share(groups([2, 2]), 5, 4) == ()
