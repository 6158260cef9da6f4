"""The gateway and a Redis that is full, far away, forgetful or of the wrong kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis
import redis.asyncio

from gridcore.lease_queue.queue import LeaseQueue, Taken
from gridnode.gateway import link
from gridnode.gateway.ledger import Ledger
from tests.support.gateway import OUTPUT, QUEUE, Gateway, client
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer
from tests.support.slow_link import slow_link
from tests.support.waiting import wait_until

MB = 1_000_000


def soon(condition: Callable[[], object], what: str, *, within_s: float = 20) -> None:
    wait_until(condition, within_s=within_s, what=what)


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """That goes on in another thread; it ends when its connection does."""

    def run() -> None:
        with suppress(redis.ConnectionError):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)


def connections_made(store: Any) -> int:
    return int(store.info("stats")["total_connections_received"])


# --- it is full


@pytest.fixture
def full() -> Iterator[RedisServer]:
    with RedisServer(settings=["maxmemory 8mb", "maxmemory-policy noeviction"]) as server:
        yield server


def fill(store: Any, list_name: str) -> int:
    """How many items it has taken."""
    with suppress(redis.exceptions.OutOfMemoryError):
        while True:
            store.lpush(list_name, b"x" * 5_000)
    return int(store.llen(list_name))


def test_a_result_that_a_full_redis_refuses_holds_up_nobody_else(full: RedisServer) -> None:
    """What was pushed before its run's first item had no lease to close, so it was refused; with it
    went the results of all others, and the node connected anew again and again."""
    with redis.Redis.from_url(full.url) as store:
        count = fill(store, QUEUE)
        with Gateway(full.url) as gateway:
            stray, worker = gateway.open_run(0), gateway.open_run(1)
            with (
                client(stray) as container,
                pytest.raises(redis.exceptions.OutOfMemoryError),
            ):
                container.lpush(OUTPUT, "stray")
            with client(worker) as container:
                for _ in range(count):
                    container.lpush(OUTPUT, container.brpop(QUEUE)[1][:1])
                assert container.rpop(QUEUE) is None

            soon(lambda: store.llen(OUTPUT) == count, "all results")
            assert set(gateway.problems) == {None}


def test_a_node_that_waits_for_work_stays_connected_to_a_full_redis(full: RedisServer) -> None:
    """BLMOVE is refused by a Redis that is full, and that was taken for the end of it."""
    with redis.Redis.from_url(full.url) as store:
        fill(store, "ballast")
        with Gateway(full.url) as gateway:
            soon(lambda: None in gateway.problems, "it is connected")
            before = connections_made(store)
            run = gateway.open_run()
            with client(run) as container, beside(lambda: container.brpop(QUEUE)):
                soon(lambda: refusals(store) >= 3, "BLMOVE is refused three times")
                gateway.end_run(run, exit_code=1)
            assert connections_made(store) == before
            assert set(gateway.problems) == {None}


def refusals(store: Any) -> int:
    return int(store.info("commandstats").get("cmdstat_blmove", {}).get("rejected_calls", 0))


# --- it is far away


def test_results_and_items_that_take_longer_than_a_call_may_arrive(
    redis_server: RedisServer, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call had its ten seconds however much it carried: a node at a slow uplink sent the same
    result for ever, one at a slow downlink took item after item and got none. Here all is faster by
    ten: one takes two seconds, and a lease is to be renewed in less."""
    monkeypatch.setattr(link, "CALL_S", 1.0)
    items = [b"%d" % number * MB for number in range(2)]
    store.lpush(QUEUE, *items)
    with (
        slow_link(redis_server.port, up=MB / 2, down=MB / 2) as slow,
        Gateway(f"redis://127.0.0.1:{slow.port}/0", lease_s=1.5) as gateway,
    ):
        run = gateway.open_run()
        with client(run) as container:
            for item in items:
                popped = container.brpop(QUEUE)[1]
                assert popped == item
                container.lpush(OUTPUT, popped)
            assert container.rpop(QUEUE) is None
            soon(lambda: store.llen(OUTPUT) == 2, "both results", within_s=40)

        assert gateway.problems == [None], "it has connected once, and then renewed beside"
        assert store.hget(gateway.keys.stats, "taken") == b"2"


def test_a_redis_that_hears_nothing_is_given_up_in_the_middle_of_a_call(
    redis_server: RedisServer, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only an answer may be missing: of a large result nothing more leaves the node."""
    monkeypatch.setattr(link, "CALL_S", 1.0)
    store.lpush(QUEUE, "item")
    with Gateway(redis_server.url) as gateway:
        run = gateway.open_run()
        with client(run) as container:
            container.brpop(QUEUE)
            container.lpush(OUTPUT, bytes(20 * MB))
            redis_server.freeze()
            try:
                with beside(lambda: container.rpop(QUEUE)):
                    soon(lambda: any(gateway.problems), "the node says so")
                    redis_server.thaw()
                    soon(lambda: store.llen(OUTPUT) == 1, "the result")
            finally:
                redis_server.thaw()


# --- its items are large


def test_a_batch_of_large_items_comes_in_parts(store: Any, redis_server: RedisServer) -> None:
    """`LPOP queue 1000` of items of a megabyte was a gigabyte in the memory of Redis and of the
    node. What comes at once is bounded now, and who waits for more gets that."""
    store.rpush(QUEUE, *[bytes([number]) * 6 * MB for number in range(3)])
    with Gateway(redis_server.url) as gateway:
        run = gateway.open_run()
        with client(run) as container:
            first = container.lpop(QUEUE, 1_000)
            assert [item[0] for item in first] == [0, 1]
            assert [item[0] for item in container.lpop(QUEUE, 1_000)] == [2]
            assert container.lpop(QUEUE, 1_000) is None
        gateway.end_run(run, exit_code=0)


@pytest.mark.parametrize(
    ("size", "most_bytes", "fit"),
    [(100, 1_000, 10), (100, 1_099, 10), (100, 99, 1), (100, 0, 1), (1, 150, 150), (0, 1, 300)],
)
def test_a_take_brings_what_fits_and_at_least_one_item(
    store: Any, redis_server: RedisServer, size: int, most_bytes: int, fit: int
) -> None:
    store.lpush(QUEUE, *[bytes(size)] * 200)

    taken = asyncio.run(take(redis_server.url, most_bytes))

    assert len(taken.leases) == min(fit, 200)
    assert taken.waiting == 200 - len(taken.leases)
    assert taken.is_limited == (taken.waiting > 0)


async def take(url: str, most_bytes: int) -> Taken:
    async with redis.asyncio.Redis.from_url(url, protocol=2) as connection:
        queue = LeaseQueue(connection, QUEUE)
        return await queue.take("n", 1_000, prefix="t", number=0, most_bytes=most_bytes)


# --- results are on another one


def test_results_that_their_redis_has_forgotten_are_sent_again(redis_server: RedisServer) -> None:
    """It lost its last second with its power, and with that results of items that were done: these
    were closed in the other Redis, so nobody did them again."""
    with (
        RedisServer(appendonly=True) as output,
        redis.Redis.from_url(redis_server.url) as store,
        Gateway(redis_server.url, output_redis=output.url) as gateway,
    ):
        items = [b"item %d" % number for number in range(10)]
        store.rpush(QUEUE, *items)
        run = gateway.open_run()
        with client(run) as container:

            def work(count: int) -> None:
                for _ in range(count):
                    container.lpush(OUTPUT, container.lpop(QUEUE))

            work(4)
            soon(lambda: len(results(output)) == 3, "all but the last are committed")
            mark = output.mark()
            work(4)
            soon(lambda: store.hget(gateway.keys.stats, "committed") == b"7", "more of them")
            output.kill()
            assert output.forget_since(mark)
            output.start()
            assert len(results(output)) <= 7
            work(2)
        gateway.end_run(run, exit_code=0)
        gateway.finish()

        assert results(output) == items[::-1], "each once, in order"


def test_a_task_does_not_end_while_a_redis_is_away_that_may_have_forgotten_results(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        RedisServer(appendonly=True) as output,
        redis.Redis.from_url(redis_server.url) as store,
        Gateway(redis_server.url, output_redis=output.url) as gateway,
    ):
        soon(lambda: None in gateway.problems, "it is connected")
        mark = output.mark()
        store.lpush(QUEUE, "item")
        run = gateway.open_run()
        with client(run) as container:
            container.lpush(OUTPUT, container.rpop(QUEUE))
        gateway.end_run(run, exit_code=0)
        soon(lambda: store.hget(gateway.keys.stats, "committed") == b"1", "the commit")
        output.kill()
        output.forget_since(mark)
        # Of one that it has not missed yet it cannot know.
        soon(lambda: "output_redis_away" in caplog.text, "the node misses it")

        finishing = threading.Thread(target=gateway.finish)
        finishing.start()
        output.start()
        finishing.join(20)

        assert results(output) == [b"item"]


def results(server: RedisServer) -> list[bytes]:
    with redis.Redis.from_url(server.url) as store:
        found: list[bytes] = store.lrange(OUTPUT, 0, -1)
        return found


# --- it is a cluster


@pytest.fixture
def cluster() -> Iterator[RedisServer]:
    """Of one server, which has all slots."""
    lines = ["cluster-enabled yes", f"cluster-port {free_port()}"]
    with RedisServer(settings=lines) as server, redis.Redis.from_url(server.url) as store:
        store.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        soon(
            lambda: "cluster_state:ok" in str(store.execute_command("CLUSTER", "INFO")), "it works"
        )
        yield server


def test_nothing_is_taken_from_a_cluster_and_the_node_says_why(cluster: RedisServer) -> None:
    """No commit was possible there: the list and the results lie in different slots. The node took
    items, threw their results away, connected anew and began again."""
    with redis.Redis.from_url(cluster.url) as store:
        store.lpush("t:input", "a", "b")
        with Gateway(cluster.url, input_queue="t:input", output_queue="t:output") as gateway:
            soon(lambda: gateway.problems, "the node says so")
            before = connections_made(store)
            run = gateway.open_run()
            with client(run) as container, beside(lambda: container.brpop("t:input")):
                gateway.end_run(run, exit_code=1)

            (problem,) = gateway.problems
            assert problem is not None
            assert "is a Redis Cluster" in problem
            assert "Submit it again with a Redis that is not a cluster" in problem
            assert connections_made(store) == before
            assert store.llen("t:input") == 2


def test_queues_in_one_slot_of_a_cluster_will_do(cluster: RedisServer) -> None:
    with (
        redis.Redis.from_url(cluster.url) as store,
        Gateway(cluster.url, input_queue="{t}:input", output_queue="{t}:output") as gateway,
    ):
        store.lpush("{t}:input", "a")
        run = gateway.open_run()
        with client(run) as container:
            container.lpush("{t}:output", container.brpop("{t}:input")[1])
        gateway.end_run(run, exit_code=0)
        gateway.finish()
        assert store.lrange("{t}:output", 0, -1) == [b"a"]


def test_a_cluster_that_is_noticed_late_is_named_too(
    cluster: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a Redis that does not say what it is, or not to us."""

    async def does_not_tell(_ledger: object, _link: object) -> None:
        return

    monkeypatch.setattr(Ledger, "_refuse_cluster", does_not_tell)
    with redis.Redis.from_url(cluster.url) as store:
        store.lpush("t:input", "a")
        with Gateway(cluster.url, input_queue="t:input", output_queue="t:output") as gateway:
            run = gateway.open_run()
            with client(run) as container:
                container.lpush("t:output", container.brpop("t:input")[1])
            gateway.end_run(run, exit_code=0)
            soon(lambda: any(gateway.problems), "the node says so")
            assert any("is a Redis Cluster" in problem for problem in gateway.problems if problem)
