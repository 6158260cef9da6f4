"""How many heartbeats a second does one hub process serve on one core, for a fleet of 10,000 nodes?

The hub has a core to itself; Redis and the load generator share the other. 64 connections are kept
alive, each of which asks for the next answer as soon as it has the last (the highest rate), or when
it is due by a Poisson process at half of that rate (the latencies: from the moment when it was due,
so that a hub that falls behind cannot hide it). The generator speaks HTTP by hand over uvloop:
httpx would take longer to ask than the hub takes to answer.

Twice: with the report of a node of four slots at work, as gridnode.report makes it, and with the
three fields that the wire's table knows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import psutil
import redis
import uvloop

from benchmarks.report import SPREAD, Table, only_figures, percentile, print_machine, say, spread
from gridcore.wire import RegisterRequest, TaskConfig
from gridnode.cores import SlotPlace
from gridnode.report import Report
from tests.support.programs import TOKEN, HubProgram
from tests.support.redis_server import RedisServer

AIM_PER_S = 3_000
HUB_CORE, OTHER_CORE = 0, 1
SLOTS = 4
WARM_UP_S = 1.0


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--nodes", type=int, default=10_000)
    arguments.add_argument("--connections", type=int, default=64)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of a round")
    chosen = arguments.parse_args()
    nodes = [f"node-{number:08x}" for number in range(chosen.nodes)]
    with (
        _on_core(OTHER_CORE),
        RedisServer(appendonly=True) as server,
        redis.Redis.from_url(server.url) as store,
    ):
        with _on_core(HUB_CORE):
            hub = HubProgram(redis_url=server.url)
            hub.start()
        try:
            print_machine(redis_url=server.url)
            bench = _Bench(
                hub=psutil.Process(hub.process.pid),
                store=store,
                port=hub.port,
                connections=chosen.connections,
                rounds=chosen.rounds,
                seconds=chosen.seconds,
            )
            uvloop.run(bench.run(nodes))
        finally:
            hub.close()


@contextmanager
def _on_core(core: int) -> Iterator[None]:
    """What is started within it runs on that core, as does this process meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class _Round:
    answers: int
    took_s: float
    hub_cpu_s: float
    generator_cpu_s: float
    redis_cpu_s: float
    commands: dict[str, float]
    """Calls of each Redis command, those inside of scripts as well."""
    latencies_s: list[float] = field(repr=False)

    @property
    def per_s(self) -> float:
        return self.answers / self.took_s


@dataclass(frozen=True)
class _Bench:
    hub: psutil.Process
    store: redis.Redis
    port: int
    connections: int
    rounds: int
    seconds: float

    async def run(self, nodes: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(_Connection, "127.0.0.1", self.port))[1]
            for _ in range(self.connections)
        ]
        began = time.monotonic()
        await _send_all(connections, [_register(node) for node in nodes])
        per_s = len(nodes) / (time.monotonic() - began)
        say(f"registered {len(nodes):,} nodes at {per_s:,.0f}/s")
        for name, requests in (
            (f"a report of {SLOTS} slots", [_full_heartbeat(node) for node in nodes]),
            ("the wire's three fields", [_minimal_heartbeat(node) for node in nodes]),
        ):
            random.Random(1).shuffle(requests)
            await self._measure(name, connections, requests)
        for connection in connections:
            connection.close()

    async def _measure(
        self, name: str, connections: Sequence[_Connection], requests: Sequence[bytes]
    ) -> None:
        say(f"a heartbeat is {name}: {len(requests[0])} bytes with its HTTP head\n")
        source = cycle(requests)
        await _as_fast_as_answered(connections, source, WARM_UP_S)
        fast = [
            await self._round(_as_fast_as_answered(connections, source, self.seconds))
            for _ in range(self.rounds)
        ]
        half_per_s = statistics.median(r.per_s for r in fast) / 2
        calm = [
            await self._round(_when_due(connections, source, self.seconds, half_per_s))
            for _ in range(self.rounds)
        ]
        _show(fast, calm, half_per_s)

    async def _round(self, load: Coroutine[None, None, list[float]]) -> _Round:
        self.store.config_resetstat()
        hub_before, mine_before = _cpu_s(self.hub), time.process_time()
        redis_before = self._redis_cpu_s()
        began = time.monotonic()
        latencies_s = await load
        took_s = time.monotonic() - began
        return _Round(
            answers=len(latencies_s),
            took_s=took_s,
            hub_cpu_s=_cpu_s(self.hub) - hub_before,
            generator_cpu_s=time.process_time() - mine_before,
            redis_cpu_s=self._redis_cpu_s() - redis_before,
            commands=self._commands(),
            latencies_s=latencies_s,
        )

    def _redis_cpu_s(self) -> float:
        cpu = self.store.info("cpu")
        return float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])

    def _commands(self) -> dict[str, float]:
        return {
            name.removeprefix("cmdstat_"): float(said["calls"])
            for name, said in self.store.info("commandstats").items()
            if not name.startswith(("cmdstat_info", "cmdstat_config"))
        }


class _Connection(asyncio.Protocol):
    """One request after the other, on one connection."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[None] | None = None
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, length = head.lower().partition(b"content-length: ")
        if len(body) < int(length.partition(b"\r\n")[0]):
            return
        assert self._answer is not None
        self._received = b""
        if head.startswith(b"HTTP/1.1 200"):
            self._answer.set_result(None)
        else:
            self._answer.set_exception(RuntimeError(f"the hub answered {head!r} {body!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the hub has closed the connection"))

    async def ask(self, request: bytes) -> None:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answer

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


async def _send_all(connections: Sequence[_Connection], requests: Sequence[bytes]) -> None:
    left = deque(requests)

    async def send(connection: _Connection) -> None:
        while left:
            await connection.ask(left.popleft())

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(send(connection))


async def _as_fast_as_answered(
    connections: Sequence[_Connection], requests: Iterator[bytes], seconds: float
) -> list[float]:
    """How long each answer took."""
    latencies_s: list[float] = []
    until = time.perf_counter() + seconds

    async def ask(connection: _Connection) -> None:
        while (began := time.perf_counter()) < until:
            await connection.ask(next(requests))
            latencies_s.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(ask(connection))
    return latencies_s


async def _when_due(
    connections: Sequence[_Connection], requests: Iterator[bytes], seconds: float, per_s: float
) -> list[float]:
    """How long after it was due each answer came."""
    latencies_s: list[float] = []
    due: asyncio.Queue[float | None] = asyncio.Queue()

    async def ask(connection: _Connection) -> None:
        while (since := await due.get()) is not None:
            await connection.ask(next(requests))
            latencies_s.append(time.perf_counter() - since)

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(ask(connection))
        # The loop's timers go by whole milliseconds. What is due within one is asked for at its
        # end and due from then on: that is the generator's delay, and not the hub's.
        chance = random.Random(2)
        now = time.perf_counter()
        until, following = now + seconds, now + chance.expovariate(per_s)
        while now < until:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            while following <= now:
                due.put_nowait(now)
                following += chance.expovariate(per_s)
        for _ in connections:
            due.put_nowait(None)
    return latencies_s


def _request(path: str, body: bytes) -> bytes:
    # The head that httpx sends for the agent.
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\n"
        "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
        f"User-Agent: python-httpx/0.28.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
    )
    return head.encode() + body


def _register(node: str) -> bytes:
    request = RegisterRequest(
        node_id=node, hostname=node, architecture="x86_64", cpu_count=SLOTS, parallelism=SLOTS
    )
    return _request("/gridnode/register", request.model_dump_json().encode())


def _full_heartbeat(node: str) -> bytes:
    report = Report([SlotPlace(number, number) for number in range(SLOTS)])
    report.set_task(
        TaskConfig(
            task_name="primes",
            image="registry.example/primes:1",
            input_redis="redis://store.example:6379/0",
            output_redis="redis://store.example:6379/0",
            input_queue="primes:input",
            output_queue="primes:output",
            version="0123456789abcdef",
        )
    )
    for slot in range(SLOTS):
        report.set_slot(slot, "starting")
        report.set_slot(slot, "running")
    beat = report.heartbeat(node, interval_s=30.0)
    # As gridnode.hub_client sends it: what httpx makes of model_dump().
    body = json.dumps(beat.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
    return _request("/gridnode/heartbeat", body.encode())


def _minimal_heartbeat(node: str) -> bytes:
    body = json.dumps({"node_id": node, "status": "Running", "active_containers": SLOTS})
    return _request("/gridnode/heartbeat", body.encode())


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _show(fast: Sequence[_Round], calm: Sequence[_Round], half_per_s: float) -> None:
    table = Table("as fast as the hub answers", *SPREAD)
    table.add("heartbeats/s", *spread([r.per_s for r in fast]), aim=f"{AIM_PER_S:,}/s")
    table.add("p50 ms", *spread([1000 * percentile(r.latencies_s, 50) for r in fast], 1))
    table.add("p99 ms", *spread([1000 * percentile(r.latencies_s, 99) for r in fast], 1))
    table.add("hub CPU ms each", *spread([1000 * r.hub_cpu_s / r.answers for r in fast], 3))
    table.add("hub's core busy %", *spread([100 * r.hub_cpu_s / r.took_s for r in fast]))
    table.add("Redis CPU ms each", *spread([1000 * r.redis_cpu_s / r.answers for r in fast], 3))
    other = [100 * (r.redis_cpu_s + r.generator_cpu_s) / r.took_s for r in fast]
    table.add("other core busy %", *spread(other), aim="below 100, or it is the limit")
    calls = [sum(r.commands.values()) / r.answers for r in fast]
    table.add("Redis commands each", *spread(calls, 2))
    table.print()
    answers = sum(r.answers for r in fast)
    names = sorted({name for r in fast for name in r.commands})
    each = {name: sum(r.commands.get(name, 0) for r in fast) / answers for name in names}
    counts = ", ".join(f"{name} {count:.3f}" for name, count in each.items() if count >= 0.0005)
    say(f"  Redis commands a heartbeat: {counts}\n")
    table = Table(f"at half of that, {half_per_s:,.0f} heartbeats/s", *SPREAD)
    table.add("heartbeats/s", *spread([r.per_s for r in calm]))
    table.add("p50 ms", *spread([1000 * percentile(r.latencies_s, 50) for r in calm], 1))
    table.add("p99 ms", *spread([1000 * percentile(r.latencies_s, 99) for r in calm], 1))
    table.add("longest ms", *spread([1000 * max(r.latencies_s) for r in calm], 1))
    table.add("hub's core busy %", *spread([100 * r.hub_cpu_s / r.took_s for r in calm]))
    table.print()


if __name__ == "__main__":
    main()
