"""The leases of lost nodes go back to their queue: by one hub, once, and not before it is sure."""

import re
from collections.abc import Iterator

import pytest
import redis

from tests.acceptance.test_agent_calls import register
from tests.support.leasing import Leasing
from tests.support.programs import HubProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

LEASE_S = 2.0

WITHIN_S = 60.0
"""Above all that the hub may have to wait for; a busy machine makes it begin anew."""


def hub_on(server: RedisServer) -> HubProgram:
    return HubProgram(redis_url=server.url, lease_time=LEASE_S)


def items(count: int) -> list[bytes]:
    return [b"item %d" % number for number in range(count)]


@pytest.fixture
def leasing(redis_server: RedisServer) -> Iterator[Leasing]:
    with Leasing(redis_server, "t:input") as leasing:
        yield leasing


@pytest.fixture
def other_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def reaping_hub(redis_server: RedisServer) -> Iterator[HubProgram]:
    with hub_on(redis_server) as hub:
        hub.submit("t", image="i")
        yield hub


def test_the_leases_of_a_silent_node_return_and_a_renewing_one_keeps_its_own(
    reaping_hub: HubProgram, leasing: Leasing
) -> None:
    leasing.push(*items(5))
    (kept,) = leasing.take("alive")
    leasing.take("silent", 4)

    def silent_is_reaped() -> bool:
        assert leasing.renew("alive")
        return len(leasing.waiting()) == 4

    wait_until(silent_is_reaped, within_s=WITHIN_S, what="the silent node's items are back")
    silent_again = leasing.take("silent again", 4)
    seen = leasing.now_s()
    wait_until(
        lambda: leasing.renew("alive") and leasing.now_s() > seen + 2 * LEASE_S,
        within_s=WITHIN_S,
        what="two more leases' time has passed",
    )

    assert {lease.payload for lease in silent_again} == {*items(5)} - {kept.payload}
    assert leasing.commit("alive", kept)
    line = reaping_hub.wait_logged("WARNING computehub leases_reaped.*").splitlines()[0]
    assert "node=silent queue=t:input items=4" in line
    assert "node=alive" not in reaping_hub.log


def test_what_a_reaped_node_commits_late_is_dropped(
    reaping_hub: HubProgram, leasing: Leasing
) -> None:
    leasing.push("x")
    (lease,) = leasing.take("slow")
    wait_until(leasing.waiting, within_s=WITHIN_S, what="the item is back")

    assert not leasing.renew("slow")
    assert not leasing.commit("slow", lease)

    assert leasing.waiting() == [b"x"]
    assert leasing.call(leasing.redis.llen("results")) == 0


def test_a_lost_node_is_not_the_items_fault(reaping_hub: HubProgram, leasing: Leasing) -> None:
    leasing.push("x")
    (lease,) = leasing.take("one")
    leasing.fail("one", lease)
    (lease,) = leasing.take("two")
    assert lease.attempts == 1

    (again,) = wait_until(lambda: leasing.take("one"), within_s=WITHIN_S, what="it is back")

    assert (again.payload, again.attempts) == (b"x", 1)


def test_two_hubs_reap_each_node_once(redis_server: RedisServer, leasing: Leasing) -> None:
    nodes = [f"n{number}" for number in range(20)]
    leasing.push(*items(100))
    for node in nodes:
        leasing.take(node, 5)
    with hub_on(redis_server) as one, hub_on(redis_server) as other:
        one.submit("t", image="i")
        leasing.fall_silent(*nodes)

        wait_until(lambda: not leasing.nodes(), within_s=WITHIN_S, what="all are reaped")

        logged = re.findall(r"leases_reaped node=(\w+) queue=t:input items=5", one.log + other.log)
        assert sorted(logged) == sorted(nodes)
        assert sorted(leasing.waiting()) == sorted(items(100))
        assert ("reaping_here" in one.log) != ("reaping_here" in other.log)


def test_a_hub_that_is_killed_is_followed_by_its_replica(
    redis_server: RedisServer, leasing: Leasing
) -> None:
    with hub_on(redis_server) as first:
        first.submit("t", image="i")
        first.wait_logged("reaping_here")
        with hub_on(redis_server) as second:
            leasing.push("x")
            leasing.take("n")
            first.kill()
            leasing.fall_silent("n")

            second.wait_logged("reaping_here")
            second.wait_logged("leases_reaped node=n", within_s=WITHIN_S)

            assert leasing.waiting() == [b"x"]


def test_nothing_is_reaped_until_a_hub_that_started_has_seen_a_lease_go_by(
    redis_server: RedisServer, leasing: Leasing
) -> None:
    """Its absence may have been that of the network, which the nodes needed as well."""
    with hub_on(redis_server) as hub:
        hub.submit("t", image="i")
        leasing.push("x")
        leasing.take("n")
        hub.kill()
        leasing.fall_silent("n")
        # Neither the lock of the one that was killed nor the age of the service is to decide.
        leasing.call(leasing.redis.delete("gc:{hub}:reaper"))
        leasing.call(leasing.redis.hincrby("gc:{hub}:service", "since", -3_600_000))
        restarted_s = leasing.now_s()
        hub.start()

        wait_until(leasing.waiting, within_s=WITHIN_S, what="it is reaped")

        assert leasing.now_s() - restarted_s >= LEASE_S


def test_nothing_is_reaped_until_a_redis_that_started_has_been_up_for_a_lease() -> None:
    with RedisServer(appendonly=True) as server, hub_on(server) as hub:
        hub.submit("t", image="i")
        with Leasing(server, "t:input") as leasing:
            leasing.push("first")
            leasing.take("before")
            wait_until(leasing.waiting, within_s=WITHIN_S, what="the hub reaps")
            leasing.take("n")
            leasing.fall_silent("n")
            server.stop()
        server.start()
        with Leasing(server, "t:input") as leasing:
            wait_until(leasing.waiting, within_s=WITHIN_S, what="it reaps again")
            uptime_s = leasing.call(leasing.redis.info("server"))["uptime_in_seconds"]

        assert uptime_s >= LEASE_S


def test_nothing_is_reaped_until_hubs_have_served_for_a_lease_after_an_outage_of_all(
    redis_server: RedisServer, leasing: Leasing
) -> None:
    with hub_on(redis_server) as hub:
        hub.submit("t", image="i")
        leasing.push("x")
        leasing.take("n")
        wait_until(leasing.waiting, within_s=WITHIN_S, what="the hub reaps")
        leasing.take("n")
        # As if the last sign of service were an hour old: the next begins a new time.
        began_ms = leasing.served_since_ms()
        leasing.call(leasing.redis.hincrby("gc:{hub}:service", "last", -3_600_000))
        wait_until(
            lambda: leasing.served_since_ms() != began_ms,
            within_s=WITHIN_S,
            what="the hub takes it for an outage",
        )
        leasing.fall_silent("n")

        wait_until(leasing.waiting, within_s=WITHIN_S, what="the hub reaps again")

        assert leasing.now_s() - leasing.served_since_ms() / 1000 >= LEASE_S


def test_a_redis_that_the_hub_could_not_reach_is_not_taken_for_silent_nodes(
    redis_server: RedisServer, other_redis: RedisServer
) -> None:
    with hub_on(redis_server) as hub, Leasing(other_redis, "t:input") as leasing:
        hub.submit("t", image="i", input_redis=other_redis.url)
        leasing.push("first", "second")
        leasing.take("before")
        wait_until(
            lambda: len(leasing.waiting()) == 2, within_s=WITHIN_S, what="the hub reaps there"
        )
        leasing.take("n", 2)
        other_redis.freeze()
        hub.wait_logged("WARNING computehub task_redis_unavailable")
        other_redis.thaw()
        hub.wait_logged("INFO    computehub task_redis_back")

        assert leasing.renew("n"), "it could not renew, and nor could the hub look"
        thawed_s = leasing.now_s()
        wait_until(
            lambda: leasing.renew("n") and leasing.now_s() > thawed_s + 2 * LEASE_S,
            within_s=WITHIN_S,
            what="two leases' time has passed",
        )
        assert "leases_reaped node=n" not in hub.log
        assert f"redis://127.0.0.1:{other_redis.port}/0" in hub.log


def test_a_stuck_redis_of_one_task_holds_up_neither_the_others_nor_the_hub(
    redis_server: RedisServer, other_redis: RedisServer, leasing: Leasing
) -> None:
    with hub_on(redis_server) as hub:
        hub.submit("stuck", image="i", input_redis=other_redis.url)
        hub.submit("t", image="i")
        hub.kill()
        leasing.push("x")
        leasing.take("n")
        other_redis.freeze()
        hub.start()

        wait_until(leasing.waiting, within_s=WITHIN_S, what="the other task's lease is back")

        hub.wait_logged("task_redis_unavailable.*nothing for 4 s")
        hub.process.terminate()
        assert hub.wait_ended(within_s=15) == 0


def test_an_item_that_a_frozen_node_was_handed_after_it_was_reaped_comes_back(
    reaping_hub: HubProgram, leasing: Leasing
) -> None:
    register(reaping_hub, "frozen")
    leasing.push("x")
    leasing.take("frozen")
    wait_until(leasing.waiting, within_s=WITHIN_S, what="it is reaped")

    leasing.be_handed_while_frozen("frozen")
    assert leasing.waiting() == []

    wait_until(leasing.waiting, within_s=WITHIN_S, what="the item comes back")
    assert leasing.waiting() == [b"x"]
    assert leasing.nodes() == set()


def test_leases_of_a_task_that_runs_no_more_return_too(
    reaping_hub: HubProgram, leasing: Leasing
) -> None:
    leasing.push("x")
    leasing.take("m")
    # A task that is gone before the hub has looked at it once is not one that ran.
    wait_until(leasing.waiting, within_s=WITHIN_S, what="the hub has looked at its queue")
    leasing.push(*items(2))
    leasing.take("n", 3)
    reaping_hub.http.delete("/api/tasks/t", params={"force": True}).raise_for_status()

    wait_until(lambda: len(leasing.waiting()) == 3, within_s=WITHIN_S, what="they are back")


def test_leases_from_before_a_start_of_the_hub_return_though_the_task_is_completed(
    redis_server: RedisServer, leasing: Leasing
) -> None:
    with hub_on(redis_server) as hub:
        hub.submit("t", image="i")
        hub.post("/api/tasks/finish")
    leasing.push("x")
    leasing.take("n")
    with hub_on(redis_server):
        wait_until(leasing.waiting, within_s=WITHIN_S, what="it is back")


def test_a_full_redis_does_not_keep_leases_from_returning(
    reaping_hub: HubProgram, redis_server: RedisServer, leasing: Leasing
) -> None:
    leasing.push("x")
    leasing.take("n")
    with redis.Redis.from_url(redis_server.url) as store:
        store.config_set("maxmemory", 1)

    wait_until(leasing.waiting, within_s=WITHIN_S, what="it is back")


def test_a_queue_that_is_none_is_named_and_does_not_keep_others_waiting(
    redis_server: RedisServer, leasing: Leasing
) -> None:
    with redis.Redis.from_url(redis_server.url) as store:
        store.set("gc:{broken:input}:nodes", "no sorted set")
    with hub_on(redis_server) as hub:
        hub.submit("broken", image="i")
        hub.submit("t", image="i")
        leasing.push("x")
        leasing.take("n")

        wait_until(leasing.waiting, within_s=WITHIN_S, what="the other queue's lease is back")

        hub.wait_logged("WARNING computehub reaping_refused queue=broken:input .*WRONGTYPE")
        assert len(re.findall("reaping_refused", hub.log)) == 1
