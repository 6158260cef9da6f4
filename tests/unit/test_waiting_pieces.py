"""What the agent waits with: interruptible waits, watched values, one report for many writers."""

import asyncio

import pytest

from gridcore.wire import HeartbeatRequest
from gridnode.cores import SlotPlace
from gridnode.interruptible import Interrupted, pause, unless
from gridnode.report import FAILURES_KEPT, Report
from gridnode.watched import Watched


def test_a_result_is_returned_and_an_error_comes_through_as_it_is() -> None:
    async def story() -> None:
        never = asyncio.Event()

        async def works() -> int:
            return 7

        async def fails() -> None:
            raise ValueError("mine")

        assert await unless(never, works()) == 7
        with pytest.raises(ValueError, match="mine"):
            await unless(never, fails())

    asyncio.run(story())


def test_an_interrupt_cancels_what_is_waited_for_and_waits_for_its_cleanup() -> None:
    async def story() -> list[str]:
        happened = []
        interrupt, started = asyncio.Event(), asyncio.Event()

        async def long() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                happened.append("cleaned up")

        async def interrupts() -> None:
            await started.wait()
            interrupt.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(interrupts())
            with pytest.raises(Interrupted):
                await unless(interrupt, long())
            happened.append("interrupted")
        return happened

    assert asyncio.run(story()) == ["cleaned up", "interrupted"]


def test_a_result_that_comes_with_the_interrupt_is_not_dropped() -> None:
    """It may be a container that has just been started: dropped, it would run on unwatched."""

    async def story() -> str:
        interrupt = asyncio.Event()

        async def starts() -> str:
            interrupt.set()
            return "a container"

        return await unless(interrupt, starts())

    assert asyncio.run(story()) == "a container"


def test_after_an_interrupt_nothing_is_begun() -> None:
    async def story() -> None:
        interrupt = asyncio.Event()
        interrupt.set()
        with pytest.raises(Interrupted):
            await pause(interrupt, 3600)

    asyncio.run(story())


def test_a_watched_value_wakes_those_who_wait_for_it() -> None:
    async def story() -> int:
        watched = Watched(0)

        async def count() -> None:
            for number in range(1, 6):
                watched.set(number)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(count())
            return await watched.wait_until(lambda value: value >= 4)

    assert asyncio.run(story()) >= 4


def report() -> Report:
    return Report([SlotPlace(0, 0), SlotPlace(1, 1)])


def beat(of: Report) -> HeartbeatRequest:
    return of.heartbeat("n", interval_s=30)


def test_a_slot_counts_as_active_from_before_its_container_exists_until_after_it() -> None:
    mine = report()
    assert (beat(mine).status, beat(mine).active_containers) == ("Idle", 0)
    for state in ("starting", "running", "stopping"):
        mine.set_slot(0, state)
        assert (beat(mine).status, beat(mine).active_containers) == ("Running", 1)
    mine.set_slot(0, "backing_off", failed=True)
    assert (beat(mine).status, beat(mine).active_containers) == ("Idle", 0)
    assert beat(mine).slots[0].starts == 1
    assert beat(mine).slots[0].failures == 1


def test_a_problem_is_an_error_until_it_is_over() -> None:
    mine = report()
    mine.set_problem("engine", "Docker is away")
    mine.set_problem("queue", "Redis is away")
    assert beat(mine).status == "Error"
    assert beat(mine).error == "Docker is away; Redis is away"
    mine.set_problem("engine", None)
    mine.set_problem("queue", None)
    assert (beat(mine).status, beat(mine).error) == ("Idle", None)


def test_the_same_problem_again_is_no_news() -> None:
    mine = report()
    mine.set_problem("engine", "Docker is away")
    mine.changed.clear()
    mine.set_problem("engine", "Docker is away")
    mine.set_problem("queue", None)
    assert not mine.changed.is_set()


def test_a_failure_is_told_until_the_hub_has_heard_it() -> None:
    mine = report()
    mine.add_failure("exit", "first", task="t")
    sent = beat(mine)
    mine.add_failure("exit", "second", task="t")
    mine.was_heard(sent)
    assert [f.message for f in beat(mine).failures] == ["second"]


def test_failures_are_bounded_while_the_hub_is_away() -> None:
    mine = report()
    for number in range(FAILURES_KEPT + 10):
        mine.add_failure("exit", str(number), task="t", log_lines=["x" * 10_000])
    told = beat(mine).failures
    assert len(told) == FAILURES_KEPT
    assert told[-1].message == str(FAILURES_KEPT + 9)
    assert len(told[0].log_lines[0]) == 4000
