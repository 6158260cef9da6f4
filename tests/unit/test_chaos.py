"""The pure parts of tests/chaos: a proof is worth as much as what checks it."""

from __future__ import annotations

import pytest

from tests.chaos.plan import (
    KINDS,
    Scene,
    draw_bursts,
    draw_events,
    draw_items,
    split,
)
from tests.chaos.verdict import DeadItem, Found, judge

SCENE = Scene(seconds=60, nodes=3, slots=2, hubs=2, lease_s=4, patience_s=5)

ITEMS = [b"0", b"1", b"2 slow"]
ALL_DONE = [b"0 1", b"0 2", b"1 1", b"1 2", b"2 1", b"2 2"]


def test_a_seed_gives_the_same_plan_again_and_another_one_another() -> None:
    assert draw_events(7, SCENE) == draw_events(7, SCENE)
    assert draw_items(7, 20_000) == draw_items(7, 20_000)
    assert draw_bursts(7, 20_000, SCENE) == draw_bursts(7, 20_000, SCENE)
    assert draw_events(7, SCENE) != draw_events(8, SCENE)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_of_event_comes_and_is_over_when_the_run_is(seed: int) -> None:
    events = draw_events(seed, SCENE)
    assert {event.kind for event in events} == set(KINDS)
    assert events == sorted(events)
    assert all(0 < event.at_s <= event.at_s + event.lasts_s <= SCENE.seconds for event in events)


@pytest.mark.parametrize("count", [1, 100, 20_000])
def test_all_items_are_pushed_once(count: int) -> None:
    items, bursts = draw_items(3, count), draw_bursts(3, count, SCENE)
    assert len({item.split()[0] for item in items}) == count
    assert [item for part in split(items, bursts) for item in part] == items
    assert all(0 <= burst.at_s <= SCENE.seconds for burst in bursts)


def test_all_done_is_good() -> None:
    verdict = judge(Found(ITEMS, ALL_DONE))
    assert verdict.is_good
    assert verdict.done == 3


def test_a_dead_letter_of_what_ends_its_consumer_is_as_good_as_results() -> None:
    items = [b"0 crash", *ITEMS[1:]]
    verdict = judge(Found(items, ALL_DONE[2:], [DeadItem(b"0 crash", "exit 1")]))
    assert verdict.is_good
    assert (verdict.done, verdict.dead, verdict.dead_for["exit 1"]) == (2, 1, 1)


def test_an_item_that_does_nothing_must_not_die_with_others() -> None:
    verdict = judge(Found(ITEMS, ALL_DONE[2:], [DeadItem(b"0", "exit 1")]))
    assert not verdict.is_good
    assert verdict.wrongly_dead == [b"0"]


def test_what_is_nowhere_is_lost() -> None:
    verdict = judge(Found(ITEMS, ALL_DONE[2:]))
    assert not verdict.is_good
    assert verdict.lost == {b"0": "nothing of it is anywhere"}


def test_half_of_an_items_results_is_a_loss() -> None:
    verdict = judge(Found(ITEMS, ALL_DONE[1:]))
    assert not verdict.is_good
    assert verdict.lost == {b"0": "one of its two results: result 2 1x"}


@pytest.mark.parametrize(
    ("found", "where"),
    [
        (Found(ITEMS, [*ALL_DONE, b"0 2"]), "result 1 1x, result 2 2x"),
        (
            Found(ITEMS, ALL_DONE, [DeadItem(b"0", "exit 1")]),
            "result 1 1x, result 2 1x, dead letter 1x",
        ),
        (Found(ITEMS, ALL_DONE, left={"queue": [b"0"]}), "result 1 1x, result 2 1x, queue"),
        (Found(ITEMS, ALL_DONE[2:], [DeadItem(b"0", "exit 1")] * 2), "dead letter 2x"),
        (Found(ITEMS, ALL_DONE[2:], left={"queue": [b"0"], "retry": [b"0"]}), "queue, retry"),
    ],
)
def test_what_is_in_two_places_is_double(found: Found, where: str) -> None:
    verdict = judge(found)
    assert not verdict.is_good
    assert verdict.doubled == {b"0": where}
    assert verdict.lost == {}


def test_what_is_still_there_is_neither_lost_nor_done() -> None:
    verdict = judge(Found(ITEMS, ALL_DONE[2:], left={"lease of n1": [b"0"]}))
    assert not verdict.is_good
    assert (verdict.left, verdict.lost, verdict.doubled) == (1, {}, {})


def test_what_nobody_pushed_is_strange() -> None:
    verdict = judge(Found(ITEMS, [*ALL_DONE, b"9 1"], [DeadItem(b"8", "exit 1")]))
    assert not verdict.is_good
    assert verdict.strange == [b"9 1", b"8"]


def test_an_item_that_ends_its_consumer_each_time_must_be_a_dead_letter() -> None:
    items = [*ITEMS, b"3 poison"]
    assert judge(Found(items, ALL_DONE, [DeadItem(b"3 poison", "exit 1")])).is_good
    verdict = judge(Found(items, [*ALL_DONE, b"3 1", b"3 2"]))
    assert not verdict.is_good
    assert verdict.wrongly_alive == [b"3 poison"]
