"""What chaos has found (see tests/chaos): each test is the story of one fault."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from gridcore.lease_queue.queue import Lease, LeaseQueue, Push, Transaction
from tests.support.desks import FakeOutside, Peer, make_desk
from tests.support.gateway import OUTPUT, QUEUE, Gateway, OpenRun, client
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

LEASE_S = 2.0


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


@pytest.fixture
def gateway(redis_server: RedisServer) -> Iterator[Gateway]:
    with Gateway(redis_server.url, lease_s=LEASE_S) as made:
        yield made


def soon(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, within_s=20, what=what)


def results(store: Any) -> list[bytes]:
    return sorted(store.lrange(OUTPUT, 0, -1))


class ThawsTheNode(NoBackoff):
    """Between a client's first attempt and its second."""

    def __init__(self, thawed: threading.Event) -> None:
        self._thawed = thawed

    def __deepcopy__(self, _memo: object) -> ThawsTheNode:
        return self  # redis-py gives each connection a copy

    def compute(self, failures: int) -> float:  # noqa: ARG002
        self._thawed.set()
        return 0.0


def client_of_a_node_that_freezes(run: OpenRun, thawed: threading.Event) -> Any:
    """What is not answered soon it sends again, and only then the node goes on."""
    return redis.Redis(
        host=run.host,
        port=run.port,
        password=run.password,
        socket_timeout=0.3,
        retry=Retry(ThawsTheNode(thawed), 10),
    )


@pytest.mark.parametrize("how", ["LPUSH", "MULTI"])
def test_a_push_that_a_client_sends_again_counts_once(
    store: Any, gateway: Gateway, how: str
) -> None:
    """A node stood still for longer than redis-py is patient. It sent its push again on a new
    connection, and the gateway found both: the result was there twice."""
    store.lpush(QUEUE, "a", "b")
    run, thawed = gateway.open_run(), threading.Event()
    with client_of_a_node_that_freezes(run, thawed) as container:
        assert container.brpop(QUEUE)[1] == b"a"
        gateway.freeze(thawed)
        if how == "LPUSH":
            assert container.lpush(OUTPUT, "1 of a", "2 of a") == 2
        else:
            with container.pipeline() as pipeline:
                pipeline.lpush(OUTPUT, "1 of a").lpush(OUTPUT, "2 of a")
                assert pipeline.execute() == [1, 1]
        assert thawed.is_set()
        container.lpush(OUTPUT, "3 of a")
        container.lpush(OUTPUT, "3 of a")
        assert container.brpop(QUEUE)[1] == b"b"
    soon(lambda: results(store), "the commit")
    assert results(store) == [b"1 of a", b"2 of a", b"3 of a", b"3 of a"]


def test_the_same_result_for_the_next_item_is_no_repetition(store: Any, gateway: Gateway) -> None:
    """A program that goes on after an error pushes what it always pushes."""
    store.lpush(QUEUE, "a", "b", "c")
    run, thawed = gateway.open_run(), threading.Event()
    with client(run, socket_timeout=0.3, retry=Retry(NoBackoff(), 0)) as container:
        container.brpop(QUEUE)
        gateway.freeze(thawed)
        with pytest.raises(redis.TimeoutError):
            container.lpush(OUTPUT, "ok")
        thawed.set()
        assert container.brpop(QUEUE)[1] == b"b"
        container.lpush(OUTPUT, "ok")
        assert container.brpop(QUEUE)[1] == b"c"
    soon(lambda: len(results(store)) == 2, "both commits")


def test_a_result_without_an_item_that_is_sent_again_while_redis_is_away_arrives_once() -> None:
    with RedisServer(appendonly=True) as server, Gateway(server.url) as gateway:
        run = gateway.open_run()
        with redis.Redis.from_url(server.url) as store:
            store.ping()
        server.kill()
        thawed = threading.Event()
        with client_of_a_node_that_freezes(run, thawed) as container:
            pushing = threading.Thread(target=container.lpush, args=(OUTPUT, "stray"))
            pushing.start()
            assert thawed.wait(20), "the first attempt was given up"
            server.start()
            pushing.join(20)
        with redis.Redis.from_url(server.url) as store:
            assert results(store) == [b"stray"]


async def take_late(url: str, node: str, count: int) -> list[Lease]:
    """A take that Redis carries out when its node has given up that connection long ago."""
    async with redis.asyncio.Redis.from_url(url, protocol=2) as connection:
        queue = LeaseQueue(connection, QUEUE)
        return (await queue.take(node, count, prefix="late-", number=0)).leases


def test_what_was_taken_for_a_node_behind_its_back_returns(
    store: Any, gateway: Gateway, redis_server: RedisServer
) -> None:
    """A network stalled. The node gave its connection up, made another and compared; then the
    first came to life, and what it had carried last was a take. The node went on renewing leases
    that it did not know of."""
    soon(lambda: None in gateway.problems, "the node has compared")
    store.lpush(QUEUE, *range(3))
    assert len(asyncio.run(take_late(redis_server.url, gateway.node, 3))) == 3

    soon(lambda: store.llen(QUEUE) == 3, "the items are back")
    assert not store.exists(gateway.keys.lease(gateway.node))


def test_what_a_busy_node_was_handed_behind_its_back_returns(store: Any, gateway: Gateway) -> None:
    """The same with BLMOVE, which puts it into the node's inbox: there it lay until a run of that
    node had time for it."""
    store.lpush(QUEUE, "long")
    run = gateway.open_run()
    with client(run) as container:
        assert container.brpop(QUEUE)[1] == b"long"
        store.rpush(gateway.keys.inbox(gateway.node), "handed")

        soon(lambda: store.lrange(QUEUE, 0, -1) == [b"handed"], "the item is back")
        container.lpush(OUTPUT, "result of long")
        assert container.brpop(QUEUE)[1] == b"handed"


def test_a_commit_that_comes_after_a_later_one_does_nothing(redis_server: RedisServer) -> None:
    """As above, with a commit. Its items are closed, so they come to no harm, but a result that
    belongs to no item was there twice; and the record of the last commit was that of an older."""

    async def story() -> None:
        async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as connection:
            queue = LeaseQueue(connection, QUEUE)

            async def commit(number: int) -> list[bool]:
                stray = Transaction((), [Push("L", [b"stray %d" % number])])
                return await queue.commit("n", f"agent1-{number}", OUTPUT, [stray])

            assert await commit(9) == [True]
            assert await commit(10) == [True]
            await commit(9)
            assert await commit(10) == [True]
            assert await connection.lrange(OUTPUT, 0, -1) == [b"stray 10", b"stray 9"]

    asyncio.run(story())


def test_a_result_of_one_thread_is_no_sign_that_another_has_read_its_item() -> None:
    """A node stood still, and two threads gave up: one had pushed, the other had asked for an item.
    What was given to nobody counted as read, and was done at the next pop: nobody ever had it."""
    desk = make_desk([b"a", b"b"])
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask(f"RPOP {QUEUE}") == [b"a"]
    two.ask(f"RPOP {QUEUE}")
    one.ask(f"LPUSH {OUTPUT} of-a")

    two.vanish(was_read=False)

    assert Peer(desk, logged_in=True).ask(f"RPOP {QUEUE}") == [b"b"]


def test_a_thread_that_asks_again_says_nothing_of_what_another_works_on() -> None:
    """The same two threads, each on a new connection: the pop of the one was taken for the end of
    the other's item, which was committed before its last result was pushed."""
    outside = FakeOutside()
    desk = make_desk([b"a"], outside=outside)
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask(f"RPOP {QUEUE}") == [b"a"]
    two.ask(f"BRPOP {QUEUE} 0")
    one.ask(f"LPUSH {OUTPUT} of-a")
    for peer in (one, two):
        peer.vanish(was_read=False)
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)

    two.ask(f"BRPOP {QUEUE} 0")
    assert outside.committed == []
    assert one.ask(f"LPUSH {OUTPUT} of-a", f"LPUSH {OUTPUT} more-of-a") == [1, 1]
    one.ask(f"BRPOP {QUEUE} 0")

    assert outside.results == [b"of-a", b"more-of-a"]


def test_an_item_whose_connection_was_closed_in_order_is_not_waited_for() -> None:
    """A thread that ended had closed its connection, and no pop of the others told that its last
    item was done: after 64 of theirs all waited for it."""
    outside = FakeOutside()
    desk = make_desk([b"a", b"b", b"c"], outside=outside)
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask(f"RPOP {QUEUE}", f"LPUSH {OUTPUT} of-a") == [b"a", 1]
    assert two.ask(f"RPOP {QUEUE}", f"LPUSH {OUTPUT} of-b") == [b"b", 1]

    one.vanish(was_read=True)
    assert two.ask(f"RPOP {QUEUE}") == [b"c"]

    assert outside.results == [b"of-a", b"of-b"]
