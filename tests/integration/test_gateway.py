"""The gateway keeps its promise to plain clients, on real sockets and a real Redis."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gridcore.lease_queue.queue import LeaseQueue
from tests.support.gateway import OUTPUT, QUEUE, Gateway, OpenRun, client
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


@pytest.fixture
def gateway(redis_server: RedisServer) -> Iterator[Gateway]:
    with Gateway(redis_server.url) as made:
        yield made


def soon(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, within_s=15, what=what)


def results(store: Any) -> list[bytes]:
    return list(store.lrange(OUTPUT, 0, -1))


def leased(store: Any, gateway: Gateway) -> int:
    return int(store.hlen(gateway.keys.lease(gateway.node)))


def assert_all_in_place(store: Any, gateway: Gateway, *, pushed: int, committed: int) -> None:
    """pushed = committed + waiting + leased + dead, and nothing besides."""
    keys = gateway.keys
    waiting = store.llen(QUEUE) + store.zcard(keys.retry) + store.llen(keys.inbox(gateway.node))
    assert pushed == committed + waiting + leased(store, gateway) + store.llen(keys.dead)


def test_a_plain_loop_gets_each_item_and_its_results_arrive(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, *range(100))
    run = gateway.open_run()
    with client(run) as container:
        for expected in range(100):
            _, item = container.brpop(QUEUE, 5)
            assert int(item) == expected, "in the order in which they were pushed"
            container.lpush(OUTPUT, b"result " + item)
    gateway.end_run(run)
    gateway.finish()

    assert sorted(results(store)) == sorted(b"result %d" % n for n in range(100))
    assert not store.exists(gateway.keys.lease(gateway.node), gateway.keys.nodes, QUEUE)


def test_it_works_as_well_where_there_is_no_uvloop(store: Any, redis_server: RedisServer) -> None:
    large = b"x" * 3_000_000
    store.lpush(QUEUE, *range(100), large)
    with Gateway(redis_server.url, loop=asyncio.new_event_loop()) as gateway:
        run = gateway.open_run()
        with client(run) as container:
            while popped := container.brpop(QUEUE, 0.1):
                container.lpush(OUTPUT, b"result " + popped[1])
        gateway.end_run(run)
        gateway.finish()

    expected = [b"result %d" % n for n in range(100)] + [b"result " + large]
    assert sorted(results(store)) == sorted(expected)


def test_results_are_held_until_the_next_pop(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, "a", "b")
    run = gateway.open_run()
    with client(run) as container:
        container.brpop(QUEUE)
        container.lpush(OUTPUT, "result of a")
        assert results(store) == []
        container.brpop(QUEUE)
        soon(lambda: results(store) == [b"result of a"], "the commit of a")
        assert leased(store, gateway) == 1
        assert_all_in_place(store, gateway, pushed=2, committed=1)


def test_a_crash_drops_the_results_and_the_item_returns_with_its_attempt_counted(
    store: Any, gateway: Gateway
) -> None:
    store.lpush(QUEUE, "a")
    run = gateway.open_run()
    with client(run) as container:
        container.brpop(QUEUE)
        container.lpush(OUTPUT, "half a result")
    gateway.end_run(run, exit_code=1)

    soon(lambda: store.zcard(gateway.keys.retry) == 1, "the item's return")
    assert results(store) == []
    member = store.zrange(gateway.keys.retry, 0, 0)[0]
    assert member.split(b" ")[1] == b"1"
    run = gateway.wait_for_work()
    with client(run) as container:
        assert container.brpop(QUEUE, 10)[1] == b"a"
        container.lpush(OUTPUT, "whole")
    gateway.end_run(run)
    soon(lambda: results(store) == [b"whole"], "the result")
    assert_all_in_place(store, gateway, pushed=1, committed=1)


def test_an_item_that_fails_too_often_becomes_a_dead_letter_that_tells_why(
    store: Any, redis_server: RedisServer
) -> None:
    store.lpush(QUEUE, "poison")
    with Gateway(redis_server.url, max_attempts=2) as gateway:
        for _ in range(2):
            run = gateway.wait_for_work()
            with client(run) as container:
                container.brpop(QUEUE, 10)
            gateway.end_run(run, exit_code=137, out_of_memory=True, log_lines=("so", "big"))
        soon(lambda: store.llen(gateway.keys.dead) == 1, "the dead letter")
        header, _, payload = store.lindex(gateway.keys.dead, 0).partition(b"\n")
        letter = json.loads(header)
        assert payload == b"poison"
        assert (letter["attempts"], letter["node"]) == (2, "node-1")
        assert letter["report"]["reason"] == "out_of_memory"
        assert letter["report"]["exit_code"] == 137
        assert letter["report"]["log_lines"] == ["so", "big"]
        assert_all_in_place(store, gateway, pushed=1, committed=0)


def test_what_the_node_ends_is_not_counted_against_the_item(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, "a")
    run = gateway.open_run()
    with client(run) as container:
        container.brpop(QUEUE)
        container.lpush(OUTPUT, "half")
    gateway.end_run(run, exit_code=143, was_ours=True)
    gateway.finish()

    assert store.lrange(QUEUE, 0, -1) == [b"a"], "back where it was, as if never taken"
    assert results(store) == []


def test_exit_code_0_commits_what_is_open(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, "a")
    run = gateway.open_run()
    with client(run) as container:
        container.brpop(QUEUE)
        container.rpush(OUTPUT, "1", "2")
        container.rpush(OUTPUT, "3")
    gateway.end_run(run, exit_code=0)
    gateway.finish()

    assert results(store) == [b"1", b"2", b"3"]
    assert_all_in_place(store, gateway, pushed=1, committed=1)


def test_a_batch_is_committed_as_one(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, *range(10))
    run = gateway.open_run()
    with client(run) as container:
        batch = container.rpop(QUEUE, 4)
        assert [int(item) for item in batch] == [0, 1, 2, 3]
        container.lpush(OUTPUT, *batch[:2])
        container.lpush(OUTPUT, *batch[2:])
        assert results(store) == []
        assert len(container.rpop(QUEUE, 100)) == 6
        soon(lambda: len(results(store)) == 4, "the commit of the first batch")
        assert container.rpop(QUEUE, 100) is None
        soon(lambda: leased(store, gateway) == 0, "the commit of the second")
        assert_all_in_place(store, gateway, pushed=10, committed=10)


def test_a_reply_that_was_never_read_is_delivered_again_uncounted(
    store: Any, gateway: Gateway
) -> None:
    """A client whose patience ends just as its item comes (redis-py 8 after five seconds) asks
    again on a new connection: that must not count as done with the item it has never seen."""
    store.lpush(QUEUE, "a", "b")
    run = gateway.open_run()
    impatient = connect(run)
    send(impatient, "BRPOP", QUEUE, "0")
    soon(lambda: run.access.desk.work.open_items == 1, "the delivery")
    impatient.close()  # with the reply unread

    with client(run) as container:
        assert container.brpop(QUEUE, 5)[1] == b"a"
        container.lpush(OUTPUT, "result of a")
        assert container.brpop(QUEUE, 5)[1] == b"b"
    gateway.end_run(run)
    gateway.finish()
    assert results(store) == [b"result of a"]
    assert store.hget(gateway.keys.stats, "aborted") is None


def test_a_pop_on_a_new_connection_commits_what_was_read_on_a_closed_one(
    store: Any, gateway: Gateway
) -> None:
    """As redis-cli does in a shell loop: a connection for each command."""
    store.lpush(QUEUE, "a", "b")
    run = gateway.open_run()
    for item in (b"a", b"b"):
        with client(run) as container:
            assert container.rpop(QUEUE) == item
        with client(run) as container:
            container.lpush(OUTPUT, b"result of " + item)
    with client(run) as container:
        assert container.rpop(QUEUE) is None
    soon(lambda: len(results(store)) == 2, "both results")
    assert leased(store, gateway) == 0


def test_a_blocked_pop_whose_connection_is_gone_gets_no_item(store: Any, gateway: Gateway) -> None:
    run = gateway.open_run()
    gone = connect(run)
    send(gone, "BRPOP", QUEUE, "0")
    soon(lambda: run.access.desk.is_idle, "the pop to wait")
    gone.close()
    soon(lambda: not run.access.desk.is_idle, "the pop to be called off")
    store.lpush(QUEUE, "a")
    with client(run) as container:
        assert container.brpop(QUEUE, 5)[1] == b"a"


def test_a_pop_that_finds_nothing_answers_when_its_time_is_up(store: Any, gateway: Gateway) -> None:
    run = gateway.open_run()
    with client(run) as container:
        began = time.monotonic()
        assert container.brpop(QUEUE, 0.3) is None
        assert time.monotonic() - began > 0.25
        assert container.lpop(QUEUE) is None
        assert container.lmove(QUEUE, "own", "LEFT", "RIGHT") is None
        assert container.execute_command("BLMPOP", "0.1", "1", QUEUE, "LEFT") is None
        store.lpush(QUEUE, "now")
        assert container.lpop(QUEUE) == b"now"


def test_a_pipeline_of_pops_leaves_all_its_items_open(store: Any, gateway: Gateway) -> None:
    """They were asked for before any was read: the second pop says nothing of the first item."""
    store.lpush(QUEUE, *range(5))
    run = gateway.open_run()
    with client(run) as container:
        for transaction in (False, True):
            pipeline = container.pipeline(transaction=transaction)
            pipeline.rpop(QUEUE)
            pipeline.rpop(QUEUE)
            assert all(pipeline.execute())
        assert run.access.desk.work.open_items == 2, "of the second pipeline"
    gateway.end_run(run, exit_code=1)
    soon(lambda: store.zcard(gateway.keys.retry) == 2, "their return")
    assert_all_in_place(store, gateway, pushed=5, committed=2)


def test_threads_commit_together_and_a_crash_loses_nothing(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, "a", "b", "c")
    run = gateway.open_run()
    with client(run) as one, client(run) as two:
        assert one.brpop(QUEUE)[1] == b"a"
        assert two.brpop(QUEUE)[1] == b"b"
        one.lpush(OUTPUT, "result of a")
        assert one.brpop(QUEUE)[1] == b"c"
        assert results(store) == [], "b may be what that result belongs to, and is not done"
    gateway.end_run(run, exit_code=1)
    soon(lambda: store.zcard(gateway.keys.retry) + store.llen(QUEUE) == 3, "all to return")
    assert results(store) == []


def test_with_explicit_acks_items_are_done_one_by_one(
    store: Any, redis_server: RedisServer
) -> None:
    store.lpush(QUEUE, "a", "b", "c")
    with Gateway(redis_server.url, ack="explicit") as gateway:
        run = gateway.open_run()
        with client(run) as container:
            assert container.lrange("own", 0, -1) == []
            taken = [container.blmove(QUEUE, "own", 5, "RIGHT", "LEFT") for _ in range(3)]
            assert taken == [b"a", b"b", b"c"]
            assert container.llen("own") == 3
            pipeline = container.pipeline(transaction=True)
            pipeline.lpush(OUTPUT, "result of b")
            pipeline.lrem("own", 1, "b")
            assert pipeline.execute() == [1, 1]
            soon(lambda: results(store) == [b"result of b"], "b alone")
            assert container.lrange("own", 0, -1) == [b"a", b"c"]
            assert container.lrem("own", 1, "unknown") == 0
            with pytest.raises(redis.ResponseError, match="ack = 'explicit'"):
                container.brpop(QUEUE, 1)
        gateway.end_run(run, exit_code=1)
        soon(lambda: store.zcard(gateway.keys.retry) == 2, "a and c")
        assert_all_in_place(store, gateway, pushed=3, committed=1)


def test_a_failed_item_comes_beside_a_long_one_if_the_task_says_so(
    store: Any, redis_server: RedisServer
) -> None:
    with Gateway(redis_server.url, ack="explicit", alone_after_failure=False) as gateway:
        store.lpush(QUEUE, "bad")
        run = gateway.open_run()
        with client(run) as container:
            assert container.blmove(QUEUE, "own", 5, "RIGHT", "LEFT") == b"bad"
        gateway.end_run(run, exit_code=1)
        soon(lambda: store.zcard(gateway.keys.retry) == 1, "the item's return")
        store.zadd(gateway.keys.retry, {store.zrange(gateway.keys.retry, 0, 0)[0]: 2**50})

        store.lpush(QUEUE, "long")
        run = gateway.open_run()
        with client(run) as container:
            assert container.blmove(QUEUE, "own", 5, "RIGHT", "LEFT") == b"long"
            store.zadd(gateway.keys.retry, {store.zrange(gateway.keys.retry, 0, 0)[0]: 0})
            assert container.blmove(QUEUE, "own", 15, "RIGHT", "LEFT") == b"bad"
            assert container.lrem("own", 1, "bad") == 1
            soon(lambda: leased(store, gateway) == 1, "only the long one to be left")


def test_with_ack_exit_only_the_exit_commits(store: Any, redis_server: RedisServer) -> None:
    store.lpush(QUEUE, "a", "b")
    with Gateway(redis_server.url, ack="exit") as gateway:
        run = gateway.open_run()
        with client(run) as container:
            for _ in range(2):
                container.lpush(OUTPUT, container.rpop(QUEUE))
            assert container.rpop(QUEUE) is None
            assert leased(store, gateway) == 2
        gateway.end_run(run)
        gateway.finish()
        assert results(store) == [b"b", b"a"]


def test_results_before_the_first_pop_go_straight_through(store: Any, gateway: Gateway) -> None:
    run = gateway.open_run()
    with client(run) as container:
        assert container.lpush(OUTPUT, "ready") == 1
        assert results(store) == [b"ready"], "in Redis before the container was answered"


def test_new_items_of_a_container_are_part_of_its_transaction(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, "root")
    run = gateway.open_run()
    with client(run) as container:
        container.brpop(QUEUE)
        container.lpush(QUEUE, "leaf")
        assert store.llen(QUEUE) == 0
        assert container.brpop(QUEUE, 5)[1] == b"leaf"
    assert store.hget(gateway.keys.stats, "committed") == b"1"


def test_lengths_count_what_the_gateway_holds(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, *range(1_000))
    run = gateway.open_run()
    with client(run) as container:
        for left in range(999, 0, -1):
            container.brpop(QUEUE)
            if left % 100 == 0:
                assert container.llen(QUEUE) == left
                assert container.lindex(QUEUE, -1) == b"%d" % (1_000 - left)
                assert container.lrange(QUEUE, -3, -1) == [
                    b"%d" % (1_002 - left - n) for n in range(3)
                ]
                assert container.lrange(QUEUE, 0, 1) == [b"999", b"998"][:left]
        assert container.exists(QUEUE) == 1
        assert container.type(QUEUE) == b"list"
        assert container.type(OUTPUT) == b"none"


def test_anything_else_is_refused_with_a_word_on_what_to_do(store: Any, gateway: Gateway) -> None:
    run = gateway.open_run()
    with client(run) as container:
        for command in (
            ("SET", "x", "1"),
            ("GET", "x"),
            ("BRPOP", "other", "0"),
            ("LPUSH", "other", "1"),
            ("DEL", QUEUE),
            ("LRANGE", OUTPUT, "0", "-1"),
            ("EVAL", "return 1", "0"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("SUBSCRIBE", "x"),
            ("CONFIG", "SET", "maxmemory", "1"),
        ):
            with pytest.raises(redis.ResponseError, match="gridcore"):
                container.execute_command(*command)
        assert container.ping()


def test_keys_that_the_task_allows_pass_through(store: Any, redis_server: RedisServer) -> None:
    with Gateway(redis_server.url, keys=["cache:*", "count:?"]) as gateway:
        run = gateway.open_run()
        with client(run) as container:
            assert container.set("cache:x", "1", ex=100)
            assert container.get("cache:x") == b"1"
            assert container.hset("cache:h", mapping={"a": "1", "b": "2"}) == 2
            assert container.incr("count:1") == 1
            assert store.get("count:1") == b"1"
            for command in (
                ("GET", "other"),
                ("MSET", "cache:a", "1", "other", "1"),
                ("SET", gateway.keys.stats, "1"),
                ("DEL", QUEUE, "cache:x"),
                ("EVAL", "return redis.call('GET', 'other')", "1", "cache:x"),
                ("BLPOP", "cache:list", "0"),
                ("SORT", "cache:list", "GET", "other"),
                ("SCAN", "0"),
                ("FLUSHALL",),
            ):
                with pytest.raises(redis.ResponseError, match="gridcore"):
                    container.execute_command(*command)


def test_constants_are_read_from_redis_once_for_all_slots(
    store: Any, redis_server: RedisServer
) -> None:
    large = b"x" * 5_000_000
    with Gateway(redis_server.url, constants=["f:*"]) as gateway:
        with client(gateway.open_run(0)) as one, client(gateway.open_run(1)) as two:
            assert one.get("f:x") is None
            assert two.set("f:x", large)
            store.hset("f:h", "field", "value")
            for container in (one, two, one):
                assert container.get("f:x") == large
                assert container.hget("f:h", "field") == b"value"
            store.delete("f:x", "f:h")
            assert two.get("f:x") == large
            assert one.hget("f:h", "field") == b"value"
            assert one.exists("f:x") == 0
        with client(gateway.open_run(0)) as next_run:
            assert next_run.get("f:x") == large
    calls = store.info("commandstats")
    assert (calls["cmdstat_get"]["calls"], calls["cmdstat_hget"]["calls"]) == (2, 1)


def test_the_right_secret_is_that_of_this_run_only(store: Any, gateway: Gateway) -> None:
    def log_in(run: OpenRun, password: str | None) -> bool:
        at_once = Retry(NoBackoff(), 0)
        with redis.Redis(run.host, run.port, password=password, retry=at_once) as container:
            return bool(container.ping())

    run, other = gateway.open_run(0), gateway.open_run(1)
    assert log_in(run, run.password)
    for password in (None, other.password):
        with pytest.raises(redis.AuthenticationError):
            log_in(run, password)
    gateway.end_run(run)
    again = gateway.open_run(0)
    with pytest.raises(redis.AuthenticationError):
        log_in(again, run.password)


def test_a_restarted_agent_gives_back_what_the_one_before_it_held(
    store: Any, redis_server: RedisServer
) -> None:
    store.lpush(QUEUE, *range(10))
    with Gateway(redis_server.url) as killed, client(killed.open_run()) as container:
        container.brpop(QUEUE)
    assert leased(store, killed) > 0, "it was not stopped in order"

    with Gateway(redis_server.url) as restarted:
        run = restarted.open_run()
        with client(run) as container:
            taken = [int(container.brpop(QUEUE, 5)[1]) for _ in range(10)]
        assert sorted(taken) == list(range(10))


def test_a_node_that_was_reaped_finds_out_and_its_results_are_dropped(
    store: Any, redis_server: RedisServer
) -> None:
    store.lpush(QUEUE, "a")
    with Gateway(redis_server.url, lease_s=1.2) as gateway:
        run = gateway.open_run()
        with client(run) as container:
            container.brpop(QUEUE)
            reap(redis_server, gateway.node)
            assert store.lrange(QUEUE, 0, -1) == [b"a"]
            soon(lambda: gateway.must_end(run) == "leases_lost", "the node to find out")
            container.lpush(OUTPUT, "late")
        gateway.end_run(run, exit_code=0)
        gateway.finish()
    assert results(store) == []
    assert store.lrange(QUEUE, 0, -1) == [b"a"]


def test_while_redis_is_away_containers_go_on_and_each_result_arrives_once() -> None:
    with RedisServer(appendonly=True) as server:
        with redis.Redis.from_url(server.url) as store:
            store.lpush(QUEUE, *range(2_000))
            store.execute_command("CONFIG", "SET", "appendfsync", "always")
        with Gateway(server.url) as gateway:
            run = gateway.open_run()
            with client(run) as container:
                taken = [container.brpop(QUEUE)[1] for _ in range(200)]
                soon(lambda: gateway.delivery.stock.size > 20, "items in stock")
                server.kill()
                for _ in range(20):
                    container.lpush(OUTPUT, taken[-1])
                    taken.append(container.brpop(QUEUE)[1])
                server.start()
                while len(taken) < 2_000:
                    container.lpush(OUTPUT, taken[-1])
                    taken.append(container.brpop(QUEUE, 10)[1])
                container.lpush(OUTPUT, taken[-1])
            gateway.end_run(run)
            gateway.finish()
            with redis.Redis.from_url(server.url) as store:
                arrived = sorted(int(result) for result in results(store))
                # The first 199 items were taken without pushing anything.
                assert len(set(taken)) == 2_000
                assert arrived == list(range(199, 2_000))


def test_a_redis_that_is_full_is_drained(store: Any, redis_server: RedisServer) -> None:
    store.config_set("maxmemory-policy", "noeviction")
    store.lpush(QUEUE, *(b"%05d" % n + b"x" * 1_000 for n in range(1_000)))
    with Gateway(redis_server.url) as gateway:
        run = gateway.open_run()
        store.config_set("maxmemory", store.info("memory")["used_memory"] - 200_000)
        with pytest.raises(redis.OutOfMemoryError):
            store.lpush(QUEUE, "more")
        with client(run) as container:
            for _ in range(1_000):
                container.lpush(OUTPUT, container.brpop(QUEUE, 10)[1][:5])
        gateway.end_run(run)
        soon(lambda: store.llen(OUTPUT) == 1_000, "all results")
        assert len(set(results(store))) == 1_000


def test_results_may_go_to_another_redis(store: Any, redis_server: RedisServer) -> None:
    with RedisServer() as other, redis.Redis.from_url(other.url) as target:
        store.lpush(QUEUE, *range(50))
        with Gateway(redis_server.url, output_redis=other.url) as gateway:
            run = gateway.open_run()
            with client(run) as container:
                assert container.lpush(OUTPUT, "ready") == 1
                for _ in range(49):
                    container.lpush(OUTPUT, container.brpop(QUEUE, 5)[1])
                other.kill()
                last = container.brpop(QUEUE, 5)[1]
                container.lpush(OUTPUT, last)
                other.start()
            gateway.end_run(run)
            gateway.finish()
        assert results(store) == []
        # It has no file, so what it held when it was killed is gone; what came after is not.
        assert last in results(target)
        assert len(set(results(target))) == len(results(target))


def test_what_lies_in_stock_is_given_back_to_others(store: Any, redis_server: RedisServer) -> None:
    """A node that was fast and is slow now must not sit on what it has fetched."""
    store.lpush(QUEUE, *range(2_000))
    with (
        Gateway(redis_server.url, node="fast") as fast,
        Gateway(redis_server.url, node="other") as other,
    ):
        run, others = fast.open_run(), other.open_run()
        with client(run) as container, client(others) as elsewhere:
            taken = [int(container.brpop(QUEUE)[1]) for _ in range(300)]
            assert fast.delivery.stock.size > 20
            # From here on the program sits on its item.
            soon(lambda: leased(store, fast) == 1, "all but that item is given back")
            rest = [int(elsewhere.brpop(QUEUE, 5)[1]) for _ in range(1_700)]
        assert sorted(taken + rest) == list(range(2_000))


def test_the_last_items_are_shared_by_all_nodes(store: Any, redis_server: RedisServer) -> None:
    with Gateway(redis_server.url, node="one") as one, Gateway(redis_server.url, node="two") as two:
        runs = one.open_run(), two.open_run()
        store.lpush(QUEUE, *range(1_000))
        with client(runs[0]) as first, client(runs[1]) as second:
            for _ in range(450):
                first.brpop(QUEUE)
                second.brpop(QUEUE)
            stocks = one.delivery.stock, two.delivery.stock
            soon(
                lambda: store.llen(QUEUE) + sum(stock.size for stock in stocks) == 100,
                "what is under way to arrive",
            )
            assert max(stock.size for stock in stocks) <= 60


def test_a_node_that_was_frozen_past_its_lease_finds_out_before_it_hands_out_anything(
    store: Any, redis_server: RedisServer
) -> None:
    store.lpush(QUEUE, "a")
    thaw = threading.Event()
    with Gateway(redis_server.url, lease_s=1.0) as gateway:
        run = gateway.open_run()
        with client(run) as container:
            container.brpop(QUEUE)
            container.lpush(OUTPUT, "late")
            gateway.freeze(thaw)
            soon(lambda: silent_s(store, gateway) > 1.2, "the lease to run out")
            reap(redis_server, gateway.node)
            taken_elsewhere = store.rpop(QUEUE)
            thaw.set()
            soon(lambda: gateway.must_end(run) == "leases_lost", "the node to find out")
        gateway.end_run(run, exit_code=0)
        gateway.finish()
    assert taken_elsewhere == b"a"
    assert results(store) == []
    assert store.llen(QUEUE) == 0


def test_the_last_items_are_had_from_either_side(store: Any, gateway: Gateway) -> None:
    """Before a program has asked nobody knows from which side it will: what was fetched from the
    other one must not lie there for ever."""
    store.rpush(QUEUE, "a", "b", "c")
    run = gateway.wait_for_work()
    with client(run) as container:
        assert container.lpop(QUEUE, 2) == [b"a", b"b"]
        assert container.blpop(QUEUE, 5)[1] == b"c"
        assert container.lpop(QUEUE) is None


def test_slots_share_the_stock_and_no_item_is_given_twice(store: Any, gateway: Gateway) -> None:
    store.lpush(QUEUE, *range(500))
    runs = gateway.open_run(0), gateway.open_run(1)
    with client(runs[0]) as one, client(runs[1]) as two:
        taken = [(one, two)[n % 2].brpop(QUEUE, 5)[1] for n in range(500)]
    assert sorted(map(int, taken)) == list(range(500))


def silent_s(store: Any, gateway: Gateway) -> float:
    """For how long the node has not renewed, by Redis' clock."""
    seconds, microseconds = store.time()
    renewed_ms = store.zscore(gateway.keys.nodes, gateway.node)
    return float(seconds + microseconds / 1e6 - renewed_ms / 1e3)


def connect(run: OpenRun) -> socket.socket:
    """A client that can be as careless as a test needs it."""
    made = socket.create_connection((run.host, run.port), timeout=10)
    send(made, "AUTH", run.password)
    assert made.recv(5) == b"+OK\r\n"
    return made


def send(connection: socket.socket, *words: str) -> None:
    parts = [f"*{len(words)}\r\n"] + [f"${len(word)}\r\n{word}\r\n" for word in words]
    connection.sendall("".join(parts).encode())


def reap(server: RedisServer, node: str) -> None:
    import asyncio

    import redis.asyncio

    async def call() -> None:
        async with redis.asyncio.Redis.from_url(server.url, protocol=2) as store:
            queue = LeaseQueue(store, QUEUE)
            assert await queue.reap(node, silent_ms=0) == 0

    asyncio.run(call())
