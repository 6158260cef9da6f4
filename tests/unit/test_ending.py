"""When a slot may start its next run."""

from typing import Any

import pytest

from gridnode.ending import FIRST_PAUSE_S, LONGEST_PAUSE_S, Ended, Next, RestartRule

MIDDLE = 0.5
"""The jitter that changes nothing."""


def ended(exit_code: int | None = 1, ran_s: float = 0.1, **details: Any) -> Ended:
    return Ended(exit_code, ran_s, **details)


def pauses(rule: RestartRule, *endings: Ended) -> list[float]:
    return [rule.after(one, jitter=MIDDLE).pause_s for one in endings]


def test_a_good_end_is_followed_by_the_next_run_at_once() -> None:
    assert RestartRule().after(ended(0), jitter=MIDDLE) == Next(0.0)


def test_crashes_are_backed_off_from_a_second_to_a_minute() -> None:
    assert pauses(RestartRule(), *[ended()] * 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_crashes_on_items_known_to_be_bad_is_not_paused_for_them() -> None:
    """They have a pause of their own; good items would have to wait as well."""
    known = ended(had_suspects_only=True)
    assert pauses(RestartRule(), ended(), known, known, known, ended()) == [1, 0, 0, 0, 2]


@pytest.mark.parametrize(("jitter", "factor"), [(0.0, 0.8), (1.0, 1.2)])
def test_pauses_vary_by_a_fifth_so_that_slots_do_not_start_in_step(
    jitter: float, factor: float
) -> None:
    rule = RestartRule()
    found = [rule.after(ended(), jitter=jitter).pause_s for _ in range(8)]
    assert found[0] == pytest.approx(FIRST_PAUSE_S * factor)
    assert found[-1] == pytest.approx(LONGEST_PAUSE_S * factor)


def test_a_good_end_or_a_long_run_begins_the_count_anew() -> None:
    rule = RestartRule()
    assert pauses(rule, ended(), ended(), ended(0), ended()) == [1, 2, 0, 1]
    assert pauses(rule, ended(), ended(ran_s=61), ended()) == [2, 1, 2]


def test_what_the_node_or_the_engine_ended_says_nothing_about_the_program() -> None:
    rule = RestartRule()
    assert pauses(rule, ended(), ended(137, was_ours=True), ended()) == [1, 0, 2]
    assert rule.after(ended(137, was_ours=True), jitter=MIDDLE).failure is None


def test_each_kind_of_failure_has_its_name_and_says_what_happened() -> None:
    crash = RestartRule().after(ended(3), jitter=MIDDLE)
    killed = RestartRule().after(ended(137), jitter=MIDDLE)
    memory = RestartRule().after(ended(137, out_of_memory=True), jitter=MIDDLE)
    start = RestartRule().after(ended(None, start_error="no such program"), jitter=MIDDLE)

    assert (crash.failure, crash.message) == ("exit", "It ended with exit code 3")
    assert (killed.failure, killed.message) == ("exit", "It ended with exit code 137 (signal 9)")
    assert memory.failure == "out_of_memory"
    assert "container_memory in gridnode.toml" in memory.message
    assert (start.failure, start.message) == ("start", "no such program")


def test_a_child_that_ran_out_of_memory_does_not_make_a_good_end_a_failure() -> None:
    """Docker sets the flag for any process of the container, whatever its program made of it."""
    assert RestartRule().after(ended(0, out_of_memory=True), jitter=MIDDLE).failure is None


def test_exiting_soon_without_taking_anything_is_a_failure_the_third_time() -> None:
    rule = RestartRule()
    nothing = ended(0, ran_s=1.2, took_nothing=True)
    endings = [rule.after(nothing, jitter=MIDDLE) for _ in range(4)]
    assert [one.failure for one in endings] == [None, None, "fruitless", "fruitless"]
    assert [one.pause_s for one in endings] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "useful", [ended(0, took_nothing=False), ended(0, ran_s=11, took_nothing=True)]
)
def test_a_run_that_took_something_or_its_time_is_not_fruitless(useful: Ended) -> None:
    rule = RestartRule()
    nothing = ended(0, took_nothing=True)
    endings = [rule.after(one, jitter=MIDDLE) for one in (nothing, nothing, useful, nothing)]
    assert [one.failure for one in endings] == [None] * 4
