"""One run, from the first push to the ledger that is printed."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gridcore.event_loop import new_event_loop
from tests.chaos.cast import Cast, Settings
from tests.chaos.monkey import Monkey
from tests.chaos.plan import Burst, Scene, draw_bursts, draw_events, draw_items, split
from tests.chaos.proxy import Proxy
from tests.chaos.stages import Processes, Stage
from tests.chaos.verdict import Verdict, judge
from tests.support.waiting import wait_until_async

STARTED_WITHIN_S = 60.0
STUCK_AFTER_S = 60.0
"""Without any move of an item; well above every lease, retry and backoff of such a run."""

LOOK_EVERY_S = 0.25
PUSH_AT_ONCE = 5_000
REDIS_PYS_PATIENCE_S = 5.0
TELL_EVERY_S = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    verdict: Verdict
    ledger: str
    events: Counter[str]
    """What was really done, by kind."""
    troubles: list[str]

    @property
    def is_good(self) -> bool:
        return self.verdict.is_good and not self.troubles


def run(
    settings: Settings,
    *,
    evidence: Path,
    stage: Stage | None = None,
    tell: Tell = lambda _: None,
) -> Outcome:
    """`evidence` is written whatever comes of it: logs, the plan, what really happened when, and
    the whole history of Redis."""
    with ExitStack() as stack, asyncio.Runner(loop_factory=new_event_loop) as runner:
        cast = Cast(settings, stage or Processes(), stack)
        return runner.run(_Run(settings, cast, evidence, tell).play())


class _Run:
    def __init__(self, settings: Settings, cast: Cast, evidence: Path, tell: Tell) -> None:
        self._settings = settings
        self._cast = cast
        self._evidence = evidence
        self._tell = tell
        self._items = draw_items(settings.seed, settings.items)
        self._scene = Scene(
            seconds=settings.seconds,
            nodes=settings.nodes,
            slots=settings.slots,
            hubs=settings.hubs,
            lease_s=settings.lease_s,
            patience_s=settings.patience_s or REDIS_PYS_PATIENCE_S,
        )

    async def play(self) -> Outcome:
        settings, cast = self._settings, self._cast
        proxy = Proxy(target_port=cast.redis.port, seed=settings.seed)
        bursts = draw_bursts(settings.seed, settings.items, self._scene)
        parts = split(self._items, bursts)
        events = draw_events(settings.seed, self._scene)
        self._write("plan.txt", "\n".join(map(str, [*bursts, *events])))
        await proxy.open()
        try:
            await self._push(parts[0])
            await asyncio.to_thread(
                cast.enter,
                redis_url=f"redis://127.0.0.1:{proxy.port}/0",
                work_s=self._scene.work_s(settings.items),
            )
            await self._wait_for_first_results()
            monkey = Monkey(cast, proxy, seed=settings.seed)
            began_s = time.monotonic()
            telling = asyncio.create_task(self._tell_now_and_then(monkey))
            async with asyncio.TaskGroup() as group:
                group.create_task(monkey.carry_out(events))
                group.create_task(self._push_in_time(monkey, bursts[1:], parts[1:]))
            monkey.note("the plan is carried out")
            monkey.look_for_deaths()
            await self._settle(monkey)
            took_s = time.monotonic() - began_s
            await asyncio.to_thread(self._stop_nodes, monkey)
            telling.cancel()
        finally:
            await proxy.close()
        found = await asyncio.to_thread(cast.find, self._items)
        verdict = judge(found)
        with cast.store() as store:
            stats = cast.stats(store)
        ledger = self._ledger(verdict, monkey, stats, took_s)
        self._write("diary.txt", "\n".join(monkey.diary))
        self._write("ledger.txt", ledger)
        wrong = {"lost": verdict.lost, "doubled": verdict.doubled, "left": found.left}
        self._write("wrong.txt", pformat(wrong))
        cast.keep_evidence(self._evidence)
        return Outcome(verdict, ledger, monkey.done, monkey.troubles)

    # --- the user

    async def _push(self, items: Sequence[bytes]) -> None:
        """They are on the disk when this returns: Redis' last second does not hold them."""
        async with redis.asyncio.Redis.from_url(
            self._cast.redis.url, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0)
        ) as user:
            await user.config_set("appendfsync", "always")
            for at in range(0, len(items), PUSH_AT_ONCE):
                await user.lpush(self._cast.keys.queue, *items[at : at + PUSH_AT_ONCE])
            await user.config_set("appendfsync", "everysec")

    async def _push_in_time(
        self, monkey: Monkey, bursts: Sequence[Burst], parts: Sequence[Sequence[bytes]]
    ) -> None:
        began_s = time.monotonic()
        for burst, part in zip(bursts, parts, strict=True):
            await asyncio.sleep(max(0.0, began_s + burst.at_s - time.monotonic()))
            async with monkey.redis_is_mine:
                await self._push(part)

    # --- waiting

    async def _wait_for_first_results(self) -> None:
        await wait_until_async(
            lambda: self._ask(lambda store: store.llen(self._cast.output)),
            within_s=STARTED_WITHIN_S,
            what="the first results are there",
        )

    async def _settle(self, monkey: Monkey) -> None:
        """Until nothing waits and nothing is in hand, or nothing moves any more."""
        before: Any = None
        since_s = time.monotonic()
        while True:
            now = await self._ask(self._look)
            if now is not None and self._is_over(now):
                return
            if now != before:
                before, since_s = now, time.monotonic()
            if time.monotonic() - since_s > STUCK_AFTER_S:
                monkey.note(f"STUCK: {now}")
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self, store: Any) -> dict[str, int]:
        cast, keys = self._cast, self._cast.keys
        look = {"queue": store.llen(keys.queue), "results": store.llen(cast.output)}
        if self._settings.is_direct:
            return look | {"consumers": sum(map(len, map(cast.stage.consumers, cast.nodes)))}
        look |= {"retry": store.zcard(keys.retry), "dead": store.llen(keys.dead)}
        return look | cast.held(store) | {"taken": cast.stats(store).get("taken", 0)}

    def _is_over(self, look: dict[str, int]) -> bool:
        keys = self._cast.keys
        held = [key for key in look if key.startswith((keys.lease(""), keys.inbox("")))]
        return not any(look.get(place) for place in ("queue", "retry", "consumers", *held))

    async def _ask(self, question: Callable[[Any], Any]) -> Any:
        def ask() -> Any:
            try:
                with self._cast.store() as store:
                    return question(store)
            except (redis.ConnectionError, redis.TimeoutError):
                return None

        return await asyncio.to_thread(ask)

    def _stop_nodes(self, monkey: Monkey) -> None:
        for name, program in self._cast.programs.items():
            if program in self._cast.nodes:
                code = program.terminate()
                if code != 0:
                    monkey.troubles.append(f"{name} ended with code {code} after SIGTERM")

    # --- telling

    async def _tell_now_and_then(self, monkey: Monkey) -> None:
        while True:
            look = await self._ask(self._look)
            self._tell(f"{sum(monkey.done.values()):5d} events  {look}")
            await asyncio.sleep(TELL_EVERY_S)

    def _write(self, name: str, text: str) -> None:
        self._evidence.mkdir(parents=True, exist_ok=True)
        (self._evidence / name).write_text(text + "\n")

    def _ledger(
        self, verdict: Verdict, monkey: Monkey, stats: dict[str, int], took_s: float
    ) -> str:
        settings = self._settings
        nodes = "".join(node.log for node in self._cast.nodes)
        hubs = "".join(hub.log for hub in self._cast.hubs)
        told = {
            "compared": len(re.findall("leases_compared", nodes)),
            "leases lost": _sum("leases_lost .*count=", nodes),
            "leases returned": _sum("leases_returned .*count=", nodes),
            "commits fenced": _sum("commits_fenced .*count=", nodes),
            "reaped by hubs": _sum("leases_reaped .*items=", hubs),
        }
        rate = verdict.done / took_s
        title = (
            f"chaos: seed {settings.seed}, {settings.items:,} items, {settings.nodes} nodes with"
            f" {settings.slots} slots, {settings.hubs} hubs, lease {settings.lease_s:g} s,"
            f" delivery {'direct' if settings.is_direct else 'leased'}"
        )
        balance = (
            f"{verdict.pushed:,} pushed = {verdict.done:,} with each result once"
            f" + {verdict.dead:,} dead + {verdict.left:,} left + {len(verdict.lost):,} lost"
            f" + {len(verdict.doubled):,} doubled"
        )
        lines = [
            title,
            f"  items    {balance}",
            _line("dead", verdict.dead_for),
            _line("lost", _causes(verdict.lost)),
            _line("doubled", _causes(verdict.doubled)),
            _line("events", monkey.done),
            _line("of which", monkey.came_of_it),
            _line("queue", stats),
            _line("nodes", told),
            f"  time     {took_s:.0f} s, {rate:,.0f} items/s",
        ]
        if stats:
            again = stats.get("taken", 0) - verdict.pushed
            lines.append(f"  again    {again:,} more items taken than pushed")
        lines += [f"  STRANGE  {result!r}" for result in verdict.strange[:10]]
        lines += [f"  ALIVE    {item!r} ends its consumer" for item in verdict.wrongly_alive[:10]]
        lines += [f"  DEAD     {item!r} does nothing" for item in verdict.wrongly_dead[:10]]
        lines += [f"  TROUBLE  {trouble}" for trouble in monkey.troubles]
        is_good = verdict.is_good and not monkey.troubles
        lines.append("  every item once" if is_good else "  NOT every item once")
        return "\n".join(line for line in lines if line)


def _sum(pattern: str, log: str) -> int:
    return sum(int(number) for number in re.findall(pattern + r"(\d+)", log))


def _causes(items: dict[bytes, str]) -> dict[str, int]:
    causes: dict[str, int] = {}
    for cause in items.values():
        causes[cause] = causes.get(cause, 0) + 1
    return causes


def _line(name: str, counts: dict[str, int]) -> str:
    told = ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items()))
    return f"  {name:8} {told}" if told else ""
