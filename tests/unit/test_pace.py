"""How many items a node keeps in stock."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gridnode.gateway.pace import (
    COMMIT_AT_ONCE_S,
    LONGEST_GATHERING_S,
    MAX_BYTES,
    MAX_ITEMS,
    STOCK_S,
    Pace,
    gather_s,
    low_water,
    target,
)

QUICK = Pace(
    running=4,
    seconds_per_item=0.001,
    round_trip_s=0.001,
    largest_pop=1,
    waiting=1_000_000,
    nodes=1,
    bytes_per_item=100.0,
)

paces = st.builds(
    Pace,
    running=st.integers(0, 64),
    seconds_per_item=st.none() | st.floats(0, 1e4),
    round_trip_s=st.floats(0, 100),
    largest_pop=st.integers(1, 1_000_000),
    waiting=st.integers(0, 10**12),
    nodes=st.integers(0, 100_000),
    bytes_per_item=st.floats(0, 1e10),
)


def test_quick_items_are_kept_for_a_fraction_of_a_second() -> None:
    assert target(QUICK) == QUICK.running * STOCK_S / 0.001


def test_of_slow_items_none_is_kept_while_other_nodes_could_do_them() -> None:
    assert target(replace(QUICK, seconds_per_item=1.0)) == 0


def test_nothing_is_kept_before_the_pace_is_known_or_while_nobody_runs() -> None:
    assert target(replace(QUICK, seconds_per_item=None)) == 0
    assert target(replace(QUICK, running=0)) == 0


def test_a_redis_that_is_far_away_needs_more_stock() -> None:
    far = replace(QUICK, seconds_per_item=0.1, round_trip_s=0.3)
    assert target(far) > target(replace(far, round_trip_s=0.001)) > 0


def test_a_redis_that_is_very_far_away_does_not_need_everything() -> None:
    assert target(replace(QUICK, round_trip_s=60)) == target(replace(QUICK, round_trip_s=10))


def test_who_works_in_batches_finds_the_next_batch() -> None:
    assert target(replace(QUICK, running=1, seconds_per_item=0.02, largest_pop=100)) == 200


def test_a_refill_begins_when_little_is_left_and_enough_until_it_is_there() -> None:
    goal = target(QUICK)
    assert low_water(QUICK, goal) == goal // 8
    far = replace(QUICK, round_trip_s=0.05)
    assert low_water(far, target(far)) == 2 * 0.05 * QUICK.running / 0.001


@given(paces)
def test_a_refill_is_never_for_nothing(pace: Pace) -> None:
    goal = target(pace)
    assert 0 <= low_water(pace, goal) <= goal // 2


def test_results_wait_for_some_others_while_there_is_more_to_do() -> None:
    in_tens_of_ms = replace(QUICK, running=2, seconds_per_item=0.03)
    assert gather_s(in_tens_of_ms, is_awaited=False) == 0.15, "ten of them"
    assert gather_s(replace(QUICK, running=2, seconds_per_item=0.1), is_awaited=False) == (
        LONGEST_GATHERING_S
    )
    assert gather_s(QUICK, is_awaited=False) == COMMIT_AT_ONCE_S


def test_results_do_not_wait_when_there_is_nothing_else_to_do_or_others_take_long() -> None:
    slow = replace(QUICK, running=2, seconds_per_item=10.0)
    assert gather_s(replace(QUICK, seconds_per_item=0.03), is_awaited=True) == COMMIT_AT_ONCE_S
    assert gather_s(slow, is_awaited=False) == COMMIT_AT_ONCE_S
    assert gather_s(replace(slow, seconds_per_item=None), is_awaited=False) == COMMIT_AT_ONCE_S


def test_towards_the_end_the_last_items_are_left_for_the_fleet() -> None:
    shared = replace(QUICK, nodes=10, waiting=1_000)
    assert target(shared) == 1_000 // (2 * 10)
    assert target(replace(shared, waiting=10)) == 0
    assert target(replace(shared, nodes=1)) == 1_000, "who is alone leaves them to nobody"


def test_large_items_are_kept_as_memory_allows() -> None:
    assert target(replace(QUICK, bytes_per_item=10 * 1024 * 1024)) == 3
    assert target(replace(QUICK, bytes_per_item=1024**3)) == 0


@given(paces)
def test_whatever_is_measured_the_stock_is_within_bounds(pace: Pace) -> None:
    goal = target(pace)
    assert 0 <= goal <= min(MAX_ITEMS, pace.waiting)
    assert goal * max(pace.bytes_per_item, 1.0) <= MAX_BYTES * 1.001


@given(paces, st.integers(0, 10**12))
def test_the_less_there_is_the_less_is_kept(pace: Pace, fewer: int) -> None:
    fewer = min(fewer, pace.waiting)
    assert target(replace(pace, waiting=fewer)) <= target(pace)


@given(paces, st.floats(1, 1_000))
def test_the_slower_the_items_the_fewer_are_kept(pace: Pace, factor: float) -> None:
    if pace.seconds_per_item is None:
        return
    slower = replace(pace, seconds_per_item=pace.seconds_per_item * factor)
    assert target(slower) <= target(pace)
