"""Rows that would look alike: which columns tell them apart."""

from __future__ import annotations

from dataclasses import replace

from adapters.measured import phase

from model_analyzer.core.apart import ASPECTS, apart
from model_analyzer.core.load import SharedMemory, of_intervals
from model_analyzer.core.metric import COLUMNS

ONE = phase()


def test_each_is_a_column() -> None:
    assert set(ASPECTS) <= set(COLUMNS)


def test_only_what_differs_between_phases_of_one_name_tells_them_apart() -> None:
    shared = replace(ONE, source=replace(ONE.source, shared_memory=SharedMemory()))
    grpc = replace(ONE, protocol="grpc")
    assert apart([]) == apart([ONE]) == apart([ONE, ONE]) == ()
    assert apart([ONE, shared]) == ("shared_memory",)
    assert apart([ONE, shared, grpc]) == ("client_protocol", "shared_memory")


def test_phases_of_several_names_need_no_more() -> None:
    others = [phase(load=2), phase(batch=2), phase("n"), phase(kind="request_rate")]
    assert apart([ONE, *(replace(other, call="stream_infer") for other in others)]) == ()
    variant = replace(ONE.variant, name="m_config_0")
    assert apart([ONE, replace(ONE, variant=variant, call="stream_infer")]) == ()


def test_two_protocols_are_told_apart_whatever_else_is_named() -> None:
    """HTTP at one load beside gRPC at the next would look like a series."""
    assert apart([ONE, replace(phase(load=2), protocol="grpc")]) == ("client_protocol",)
    assert apart([ONE, phase(load=2)]) == ()


def test_custom_intervals_of_one_mean_are_told_apart_by_their_digest() -> None:
    loads = [of_intervals(each) for each in ([1_000_000, 3_000_000], [2_000_000, 2_000_000])]
    one, other = (replace(ONE, load=load) for load in loads)
    assert one.load.value == other.load.value
    assert apart([one, other]) == ("request_distribution",)
    assert ASPECTS["request_distribution"](one).startswith("intervals ")
    assert ASPECTS["request_distribution"](ONE) == ""
