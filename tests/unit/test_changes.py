"""Races between a poll that arrives and a change that happens, told step by step."""

import asyncio
from typing import Any, cast

from computehub.changes import Changes
from computehub.task_list import Current

LONG_S = 3600.0


class SlowTasks:
    """Stands where Redis' answers are read: each answer is what held when it was asked for, and
    arrives when the story says so."""

    def __init__(self, now: Current) -> None:
        self.now = now
        self._under_way: list[asyncio.Event] = []

    async def current(self) -> Current:
        answer, arrives = self.now, asyncio.Event()
        self._under_way.append(arrives)
        await arrives.wait()
        return answer

    async def deliver(self, number: int) -> None:
        """Lets the answer to the n-th question (from 0) arrive, and its reader go on."""
        await _let_all_go_on()
        self._under_way[number].set()
        await _let_all_go_on()


async def _let_all_go_on() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def changes_over(tasks: SlowTasks) -> Changes:
    return Changes(cast("Any", None), cast("Any", tasks))


def test_a_change_between_the_read_of_a_poll_and_its_wait_is_not_missed() -> None:
    """Once the poll read the old version, the watcher read the new one and woke those who waited,
    and only then the poll waited, too: for a minute, while its node ran the old task."""

    async def story() -> str:
        tasks = SlowTasks(Current("old"))
        changes = changes_over(tasks)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            poll = group.create_task(
                changes.wait_until_different("old", node_id=None, within_s=LONG_S)
            )
            await asyncio.sleep(0)  # it has asked
            tasks.now = Current("new")
            look = group.create_task(changes.look())
            await tasks.deliver(1)
            await look
            await tasks.deliver(0)
            return (await poll).version

    assert asyncio.run(story()) == "new"


def test_a_look_that_began_before_a_poll_does_not_take_the_node_back() -> None:
    """The node has seen the new version; a watcher that is still reading the old one, and wakes the
    poll for another reason, must not send the node back to the old task."""

    async def story() -> str:
        tasks = SlowTasks(Current("old", stops=frozenset({"another node"})))
        changes = changes_over(tasks)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            look = group.create_task(changes.look())
            await asyncio.sleep(0)  # it has asked
            tasks.now = Current("new")
            poll = group.create_task(
                changes.wait_until_different("new", node_id="n", within_s=LONG_S)
            )
            await tasks.deliver(1)
            await tasks.deliver(0)
            await look
            await tasks.deliver(2)
            assert not poll.done()
            tasks.now = Current("newest")
            another_look = group.create_task(changes.look())
            await tasks.deliver(3)
            await another_look
            return (await poll).version

    assert asyncio.run(story()) == "newest"
