"""Plain programs in the clients that people use, at a gateway on a real Redis."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gridnode.gateway import server as servers
from tests.support.fixtures import require
from tests.support.gateway import OUTPUT, QUEUE, Gateway, OpenRun, client
from tests.support.other_clients import ClientMissing, PlainProgram, node, redis_py, shell
from tests.support.raw_clients import RawClient
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

ITEMS = 40

Command = Callable[[], list[str]]

PROGRAMS: dict[str, tuple[Command, tuple[object, ...]]] = {
    f"redis-py {major}, {kind}, RESP{resp}": (
        lambda major=major: redis_py(major),  # type: ignore[misc]
        (kind, resp),
    )
    for major in (5, 6, 7, 8)
    for kind in ("sync", "asyncio")
    for resp in (2, 3)
}
PROGRAMS |= {
    "ioredis 5": (lambda: node("ioredis.cjs", "ioredis-5"), (2,)),
    "ioredis 6, RESP2": (lambda: node("ioredis.cjs", "ioredis-6"), (2,)),
    "ioredis 6, RESP3": (lambda: node("ioredis.cjs", "ioredis-6"), (3,)),
    "node-redis 5, RESP2": (lambda: node("node_redis.cjs", "node-redis-5"), (2,)),
    "node-redis 6, RESP2": (lambda: node("node_redis.cjs", "node-redis-6"), (2,)),
    "node-redis 6, RESP3": (lambda: node("node_redis.cjs", "node-redis-6"), (3,)),
    "redis-cli, RESP2": (lambda: shell("redis_cli.sh"), (2,)),
    "redis-cli, RESP3": (lambda: shell("redis_cli.sh"), (3,)),
    "nc": (lambda: shell("nc.sh"), ()),
}


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


@pytest.fixture
def gateway(redis_server: RedisServer) -> Iterator[Gateway]:
    with Gateway(redis_server.url) as made:
        yield made


def started(command: Command, *arguments: object, run: OpenRun, folder: Path) -> PlainProgram:
    try:
        return PlainProgram(command(), *arguments, run=run, log=folder / f"log-{run.port}")
    except ClientMissing as missing:
        require(str(missing))
        raise


def assert_each_result_is_there_once(store: Any, gateway: Gateway, items: int) -> None:
    keys = gateway.keys
    arrived = sorted(store.lrange(OUTPUT, 0, -1))
    assert arrived == sorted(b"result of %d" % item for item in range(items))
    assert store.hget(keys.stats, "committed") == b"%d" % items
    assert store.hget(keys.stats, "aborted") is None
    assert not store.exists(QUEUE, keys.retry, keys.dead, keys.lease(gateway.node))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_plain_program_finds_what_it_expects_of_redis(
    store: Any, gateway: Gateway, tmp_path: Path, name: str
) -> None:
    store.lpush(QUEUE, *range(ITEMS))
    command, arguments = PROGRAMS[name]
    run = gateway.open_run()
    program = started(command, *arguments, ITEMS, run=run, folder=tmp_path)
    exit_code = program.exit_code()
    gateway.end_run(run, exit_code=exit_code)
    gateway.finish()
    assert exit_code == 0
    assert_each_result_is_there_once(store, gateway, ITEMS)


def test_redis_py_8_which_waits_five_seconds_at_most_loses_and_commits_nothing(
    store: Any, redis_server: RedisServer, tmp_path: Path
) -> None:
    """By default: then it drops the connection, and the pop with it, and asks again or gives up."""
    with Gateway(redis_server.url, slots=3) as gateway:
        runs = [gateway.open_run(slot) for slot in range(3)]
        programs = [
            started(lambda: redis_py(8, "redis_py_patient.py"), kind, run=run, folder=tmp_path)
            for kind, run in zip(("sync", "asyncio", "url"), runs, strict=True)
        ]
        askers: list[set[object]] = [set(), set(), set()]

        def have_asked_again() -> bool:
            for run, seen in zip(runs, askers, strict=True):
                seen.update(run.access.desk._waiting)
            return len(askers[0]) > 1 and len(askers[1]) > 1

        wait_until(have_asked_again, within_s=30, what="both to ask on another connection")
        assert programs[2].exit_code() == 1
        assert len(askers[2]) == 1
        ended = gateway.end_run(runs[2], exit_code=1)
        assert ended.was_ours, "there was nothing for it to do, and that is no failure"

        store.lpush(QUEUE, 0, 1)
        for run, program in zip(runs[:2], programs, strict=False):
            exit_code = program.exit_code()
            gateway.end_run(run, exit_code=exit_code)
            assert exit_code == 0
        gateway.finish()
        assert_each_result_is_there_once(store, gateway, 2)
        assert store.hget(gateway.keys.stats, "taken") == b"2"


@pytest.mark.parametrize("asks_again", ["before it closes", "after that"])
def test_a_client_that_shuts_down_before_it_closes_may_not_have_read_the_reply(
    store: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, asks_again: str
) -> None:
    """As redis-py does, and in between its thread may have to wait for others. The end comes as
    from a client that has read all: only the closing tells."""
    monkeypatch.setattr(servers, "IMPATIENT_AFTER_S", 0.0)
    monkeypatch.setattr(servers, "IMPATIENT_SETTLES_S", 10.0)
    store.lpush(QUEUE, "a", "b")
    run = gateway.open_run()
    with (
        RawClient(run.host, run.port, run.password) as impatient,
        RawClient(run.host, run.port, run.password) as again,
    ):
        impatient.send("BRPOP", QUEUE, "0")
        wait_until(lambda: run.access.desk.work.deliveries, within_s=15, what="the delivery")
        conversation: Any = run.access.desk.work.deliveries[0].connection
        impatient.socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: conversation.is_closed, within_s=15, what="its end")
        if asks_again == "before it closes":
            again.send("BRPOP", QUEUE, "0")
            impatient.close()
        else:
            impatient.close()
            again.send("BRPOP", QUEUE, "0")
        assert again.socket.recv(100) == b"*2\r\n$4\r\nwork\r\n$1\r\na\r\n"
    gateway.end_run(run, exit_code=1)
    gateway.finish()
    assert store.hget(gateway.keys.stats, "committed") is None


@pytest.mark.parametrize("ends", ["close", "shutdown and close"])
def test_a_client_that_has_read_all_and_closed_is_done_with_its_item_at_the_next_pop(
    store: Any, gateway: Gateway, ends: str
) -> None:
    store.lpush(QUEUE, "a", "b")
    run = gateway.open_run()
    for item in (b"a", b"b"):
        with RawClient(run.host, run.port, run.password) as one:
            assert one.ask("RPOP", QUEUE) == b"$1\r\n%b\r\n" % item
            if ends == "shutdown and close":
                one.socket.shutdown(socket.SHUT_RDWR)
    wait_until(
        lambda: store.hget(gateway.keys.stats, "committed") == b"1", within_s=15, what="a's commit"
    )
    gateway.end_run(run, exit_code=1)
    gateway.finish()


@pytest.mark.parametrize("resp", [2, 3])
def test_a_client_whose_patience_ends_as_items_come_sees_each_of_them_once(
    store: Any, gateway: Gateway, resp: int
) -> None:
    """Whether it closes its connection before the reply is sent, or after that and unread."""
    items, patience_s = 150, 0.004
    run = gateway.open_run()
    seen: list[int] = []
    next_one = threading.Event()

    def work() -> None:
        retry = Retry(NoBackoff(), 10_000, supported_errors=(redis.TimeoutError,))
        with client(run, protocol=resp, socket_timeout=patience_s, retry=retry) as container:
            while len(seen) < items:
                _, item = container.brpop(QUEUE, 0)
                container.lpush(OUTPUT, b"result of " + item)
                seen.append(int(item))
                next_one.set()

    worker = threading.Thread(target=work)
    worker.start()
    chance = random.Random(resp)
    never = threading.Event()
    for item in range(items):
        wait_until(lambda: run.access.desk.is_idle, within_s=15, what="the next pop")
        # Near the end of its patience.
        never.wait(patience_s - chance.uniform(0, 0.001))
        store.lpush(QUEUE, item)
        assert next_one.wait(15), f"item {item} was not seen"
        next_one.clear()
    worker.join()
    gateway.end_run(run)
    gateway.finish()
    assert seen == list(range(items))
    assert_each_result_is_there_once(store, gateway, items)
