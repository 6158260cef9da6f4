"""Carries out the plan. A victim suffers one thing at a time; different victims at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from random import Random

import redis

from tests.chaos.cast import Cast
from tests.chaos.plan import Event
from tests.chaos.proxy import Direction, Proxy
from tests.support.programs import NodeProgram, Program

LOOK_EVERY_S = 0.1

SOMEBODY_WITHIN_S = 5.0
"""So long it waits for a victim."""

ROLLED_BACK_S = 1.0
"""What is lost at the most when Redis syncs its file once a second."""


class Monkey:
    def __init__(self, cast: Cast, proxy: Proxy, *, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.came_of_it: Counter[str] = Counter()
        self.diary: list[str] = []
        self.troubles: list[str] = []
        """What must not happen whatever the monkey does."""
        self.redis_is_mine = asyncio.Lock()
        """Held while Redis is tampered with, and by the user who pushes: what they have pushed and
        synced must not be lost with Redis' last second."""
        self._cast = cast
        self._proxy = proxy
        self._random = Random(f"monkey {seed}")
        self._victims: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._began_s = time.monotonic()

    async def carry_out(self, events: Sequence[Event]) -> None:
        """Returns when all is up and running again."""
        async with asyncio.TaskGroup() as group:
            for event in events:
                await asyncio.sleep(max(0.0, self._began_s + event.at_s - time.monotonic()))
                group.create_task(self._do(event))

    def note(self, text: str) -> None:
        self.diary.append(f"{time.monotonic() - self._began_s:8.2f} {text}")

    def look_for_deaths(self) -> None:
        for name, program in self._cast.programs.items():
            if program.process.poll() is not None:
                self._trouble(f"{name} has ended by itself, code {program.process.returncode}")

    async def _do(self, event: Event) -> None:
        cast = self._cast
        match event.kind:
            case "kill consumer":
                await self._kill_consumer(event)
            case "kill agent":
                await self._restart(self._node(event), event, self._node(event).kill)
            case "stop agent":
                await self._restart(self._node(event), event, self._in_order(event))
            case "kill hub":
                hub = cast.hubs[event.target]
                await self._restart(hub, event, hub.kill)
            case "kill redis":
                await self._kill_redis(event, is_rolled_back=False)
            case "roll redis back":
                await self._kill_redis(event, is_rolled_back=True)
            case "freeze redis":
                await self._freeze_redis(event)
            case "freeze node past its lease" | "freeze node for less":
                await self._freeze_node(event)
            case "cut replies":
                await self._cut(event, "replies")
            case "cut requests":
                await self._cut(event, "requests")
            case "stall requests":
                await self._stall(event, "requests")
            case "stall replies":
                await self._stall(event, "replies")

    def _node(self, event: Event) -> NodeProgram:
        return self._cast.nodes[event.target]

    def _did(self, event: Event, detail: str = "") -> None:
        self.done[event.kind] += 1
        self.note(f"{event.kind} {detail}")

    def _trouble(self, text: str) -> None:
        self.troubles.append(text)
        self.note(f"TROUBLE: {text}")

    # --- programs

    async def _kill_consumer(self, event: Event) -> None:
        node = self._node(event)
        until_s = time.monotonic() + SOMEBODY_WITHIN_S
        while not (consumers := await asyncio.to_thread(self._cast.stage.consumers, node)):
            if time.monotonic() > until_s:
                self.note(f"no consumer of n{event.target + 1} to kill")
                return
            await asyncio.sleep(LOOK_EVERY_S)
        victim = consumers[int(event.share * len(consumers))]
        if await asyncio.to_thread(victim.kill):
            self._did(event, f"of n{event.target + 1}, {victim.name}")
        else:
            self.note("the consumer has ended before")

    async def _restart(self, program: Program, event: Event, end: Callable[[], object]) -> None:
        async with self._victims[f"{program.module} {event.target}"]:
            if program.process.poll() is not None:
                self._trouble(f"{program.module} {event.target + 1} had ended by itself")
            self._did(event, f"{event.target + 1}, back after {event.lasts_s:.1f} s")
            await asyncio.to_thread(end)
            await asyncio.sleep(event.lasts_s)
            await asyncio.to_thread(program.start)
            self.note(f"{program.module} {event.target + 1} is started again")

    def _in_order(self, event: Event) -> Callable[[], None]:
        node = self._node(event)

        def end() -> None:
            code = node.terminate()
            # An agent that has not even begun is ended by the signal itself.
            if code not in (0, -signal.SIGTERM):
                self._trouble(f"n{event.target + 1} ended with code {code} after SIGTERM")

        return end

    async def _freeze_node(self, event: Event) -> None:
        node, name = self._node(event), f"n{event.target + 1}"
        async with self._victims[f"{node.module} {event.target}"]:
            node.freeze()
            self._did(event, f"{name}, {event.lasts_s:.1f} s at the most")
            until_s = time.monotonic() + event.lasts_s
            while time.monotonic() < until_s:
                await asyncio.sleep(LOOK_EVERY_S)
                if event.kind == "freeze node for less" or self._cast.is_direct:
                    continue
                if await asyncio.to_thread(self._is_reaped, node.saved_id()):
                    self.came_of_it["nodes reaped while frozen"] += 1
                    self.note(f"{name} was reaped")
                    break
            node.thaw()
            self.note(f"{name} is thawed")

    def _is_reaped(self, node: str) -> bool:
        try:
            with self._cast.store() as store:
                return store.zscore(self._cast.keys.nodes, node) is None
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    # --- Redis and the way to it

    async def _kill_redis(self, event: Event, *, is_rolled_back: bool) -> None:
        server = self._cast.redis
        async with self.redis_is_mine:
            if not is_rolled_back:
                server.kill()
                self._did(event, f"back after {event.lasts_s:.1f} s")
            else:
                mark = server.mark()
                await asyncio.sleep(event.share * ROLLED_BACK_S)
                server.kill()
                number = self.done[event.kind] + 1
                tail = mark.file.read_bytes()[mark.size :]
                (server.folder / f"forgotten-{number}.aof").write_bytes(tail)
                lost = server.forget_since(mark)
                self._did(event, f"by {event.share * ROLLED_BACK_S:.2f} s, {lost} bytes")
                self.came_of_it["bytes that redis forgot"] += lost
            await asyncio.sleep(event.lasts_s)
            await asyncio.to_thread(server.start)
            self.note("redis is back")

    async def _freeze_redis(self, event: Event) -> None:
        async with self.redis_is_mine:
            self._cast.redis.freeze()
            self._did(event, f"{event.lasts_s:.1f} s")
            await asyncio.sleep(event.lasts_s)
            self._cast.redis.thaw()
            self.note("redis is thawed")

    async def _cut(self, event: Event, direction: Direction) -> None:
        until_s = time.monotonic() + SOMEBODY_WITHIN_S
        while not (count := self._proxy.cut(direction, event.share)):
            if time.monotonic() > until_s:
                self.note("no connection to cut")
                return
            await asyncio.sleep(LOOK_EVERY_S)
        self._did(event, f"on {count} connections")

    async def _stall(self, event: Event, direction: Direction) -> None:
        go_on = self._proxy.stall(direction, event.share)
        self._did(event, f"{event.lasts_s:.1f} s, share {event.share:.2f}")
        await asyncio.sleep(event.lasts_s)
        go_on()
        self.note(f"{direction} go on")
