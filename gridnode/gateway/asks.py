"""What containers want to know of Redis, or do there with further keys: each asks and is answered.

While Redis is away they wait for it; and nothing is asked for who has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from redis.exceptions import RedisError, ResponseError

from gridnode.gateway.foreign import CommandFacts, KeyRules, facts, keys_of
from gridnode.gateway.link import Line
from gridnode.gateway.outside import IsWanted, NotAllowed, NotWanted, Then
from gridnode.gateway.resp import Command

WANTED_EVERY_S = 0.25
"""While Redis is away: who has asked and is gone must not be kept, with commands of any size."""


class Asks:
    def __init__(self, input_line: Line, output_line: Line, keys: KeyRules) -> None:
        self._input_line = input_line
        self._output_line = output_line
        self._keys = keys
        self._facts: dict[bytes, CommandFacts] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled: the parent of all that is asked."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def ask(self, command: Command, then: Then, is_wanted: IsWanted) -> None:
        self._spawn(self._ask(self._input_line, command, then, is_wanted, may_repeat=True))

    def ask_output(self, command: Command, then: Then, is_wanted: IsWanted) -> None:
        self._spawn(self._ask(self._output_line, command, then, is_wanted, may_repeat=True))

    def pass_on(self, command: Command, then: Then, is_wanted: IsWanted) -> None:
        self._spawn(self._pass_on(command, then, is_wanted))

    def _spawn(self, what: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(what)

    async def _ask(
        self, line: Line, command: Command, then: Then, is_wanted: IsWanted, *, may_repeat: bool
    ) -> None:
        # Each time anew: one that takes so long that the connection is given up for it would, for
        # nobody, bring down the next one as well.
        while is_wanted():
            try:
                async with asyncio.timeout(WANTED_EVERY_S):
                    link = await line.link()
            except TimeoutError:
                continue
            if not is_wanted():
                break
            try:
                answer: Any = await link.execute_command(*command)
            except ResponseError as refusal:
                answer = refusal
            except RedisError as error:
                if may_repeat:
                    await asyncio.sleep(0)
                    continue
                answer = ResponseError(
                    f"ERR gridcore: the task's Redis went away ({error}); whether it has carried"
                    " this out is not known"
                )
            then(answer)
            return
        then(NotWanted())

    async def _pass_on(self, command: Command, then: Then, is_wanted: IsWanted) -> None:
        name = command[0].upper()
        if name not in self._facts:
            question = [b"COMMAND", b"INFO", name]
            learn = partial(self._learn, name)
            await self._ask(self._input_line, question, learn, is_wanted, may_repeat=True)
        known = self._facts.get(name)
        keys = keys_of(command, known) if known else None
        if keys and all(self._keys.allow(key) for key in keys):
            await self._ask(self._input_line, command, then, is_wanted, may_repeat=False)
        else:
            then(NotAllowed())

    def _learn(self, name: bytes, info: Any) -> None:
        # What Redis does not know is not remembered: there is no end of such names.
        if isinstance(info, list) and info and info[0]:
            self._facts[name] = facts(info[0])
