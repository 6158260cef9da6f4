"""A node with leased delivery, from the hub to plain programs that know nothing of it."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.support import workers
from tests.support.processes import free_port, tail
from tests.support.programs import HubProgram, NodeProgram
from tests.support.queues import Queue
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

PLAIN_LOOP = [
    sys.executable,
    "-c",
    """
import os, redis
source = redis.Redis.from_url(os.environ["INPUT_REDIS_URL"], socket_timeout=None)
target = redis.Redis.from_url(os.environ["OUTPUT_REDIS_URL"])
while True:
    _, item = source.brpop(os.environ["INPUT_QUEUE"])
    if item == b"crash":
        for line in range(100):
            print("line", line, flush=True)
        os._exit(7)
    if item == b"hang":
        import time
        time.sleep(1000)
    target.lpush(os.environ["OUTPUT_QUEUE"], item)
""",
]

ENVIRONMENT = workers.python("""
print("waiting")
item = take()
give("|".join([os.environ["INPUT_REDIS_URL"], os.environ["OUTPUT_REDIS_URL"]]))
""")


@pytest.fixture
def queue(redis_server: RedisServer) -> Iterator[Queue]:
    queue = Queue(redis_server, "t")
    yield queue
    queue.redis.close()


@pytest.fixture
def node(hub: HubProgram) -> Iterator[NodeProgram]:
    with NodeProgram(
        hub.url, node_id="n", runtime="process", parallelism=2, heartbeat_interval=1
    ) as node:
        wait_until(
            lambda: any(found["id"] == "n" for found in hub.nodes()),
            within_s=20,
            what="the node is there",
        )
        yield node


def soon(condition: Any, what: str, *, within_s: float = 20) -> None:
    wait_until(condition, within_s=within_s, what=what)


def keys_of(queue: Queue) -> set[str]:
    return {str(key) for key in queue.redis.keys("gc:{t:input}:*")}


def in_hand(queue: Queue) -> int:
    return int(queue.redis.hlen("gc:{t:input}:lease:n"))


def children(node: NodeProgram) -> list[psutil.Process]:
    return psutil.Process(node.process.pid).children(recursive=True)


def test_a_plain_program_does_each_item_once(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    items = [str(number) for number in range(5_000)]
    queue.push(*items)
    hub.submit("t", command=PLAIN_LOOP)
    queue.wait_for(*items)
    soon(lambda: in_hand(queue) == 0, "nothing is leased")
    work = wait_until(
        lambda: (found := hub.node("n")["work"]) and found["committed"] == 5_000 and found,
        within_s=10,
        what="the heartbeat tells of it",
    )
    assert work["taken"] == 5_000
    assert work["aborted"] == 0
    assert 0 < work["seconds_per_item"] < 1
    assert sum(slot["committed"] for slot in hub.node("n")["slots"]) == 5_000
    assert hub.node("n")["isolation"] == "none", "plain processes have none"


def test_a_program_never_learns_where_redis_is(
    hub: HubProgram, node: NodeProgram, queue: Queue, redis_server: RedisServer
) -> None:
    queue.push("x")
    hub.submit("t", command=ENVIRONMENT)
    soon(lambda: queue.results, "it tells its environment")
    for url in queue.results[0].split("|"):
        assert f":{redis_server.port}" not in url
        assert url.startswith("redis://default:")


def test_nothing_runs_without_work_and_a_new_item_is_taken_at_once(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    hub.submit("t", command=PLAIN_LOOP)
    soon(lambda: hub.node("n")["task"] == "t", "the node has the task")
    assert children(node) == []
    queue.push("one")
    queue.wait_for("one")
    assert len(children(node)) == 1, "one item, one run"
    soon(lambda: children(node) == [], "the idle run is ended", within_s=40)
    assert hub.get("/api/tasks/t")["failures"] == [], "that is nobody's failure"
    queue.push("two")
    queue.wait_for("one", "two")


def test_an_item_that_always_crashes_is_a_dead_letter_and_the_others_are_done(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("a", "crash", "b", "c")
    hub.submit("t", command=PLAIN_LOOP, max_attempts=2)
    queue.wait_for("a", "b", "c")
    soon(lambda: queue.redis.llen("gc:{t:input}:dead") == 1, "the dead letter")
    (letter,) = hub.get("/api/tasks/t/dead-letters")["dead_letters"]
    assert letter["payload"] == "crash"
    assert (letter["reason"], letter["exit_code"], letter["attempts"]) == ("exit", 7, 2)
    assert letter["node"] == "n"
    assert letter["log_lines"] == [f"line {number}" for number in range(50, 100)]


def test_a_tenth_that_always_crashes_does_not_keep_the_others_waiting(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    """Slots paused for longer and longer, since they were given what had failed before, alone."""
    items = ["crash" if number % 10 == 0 else f"{number}" for number in range(100)]
    queue.push(*items)
    hub.submit("t", command=PLAIN_LOOP)

    soon(lambda: queue.redis.llen("gc:{t:input}:dead") == 10, "ten dead letters", within_s=60)

    soon(lambda: len(queue.results) == 90, "the others")


def test_a_task_whose_redis_was_never_reached_is_left_at_once(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    hub.submit("lost", command=PLAIN_LOOP, input_redis=f"redis://127.0.0.1:{free_port()}/0")
    soon(lambda: "has not reached the task's Redis" in (hub.node("n")["error"] or ""), "the error")
    queue.push("a")
    hub.submit("t", command=PLAIN_LOOP)

    hub.post("/api/tasks/next")

    soon(lambda: queue.results == ["a"], "the result", within_s=10)
    assert "task_left_unsettled" not in node.log


def test_a_run_that_sits_on_an_item_for_too_long_is_killed(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("hang", "a")
    hub.submit("t", command=PLAIN_LOOP, max_attempts=1, item_timeout=1)
    queue.wait_for("a")
    soon(lambda: queue.redis.llen("gc:{t:input}:dead") == 1, "the dead letter")
    header = str(queue.redis.lindex("gc:{t:input}:dead", 0)).partition("\n")[0]
    assert json.loads(header)["report"]["reason"] == "item_timeout"
    soon(
        lambda: [f["reason"] for f in hub.get("/api/tasks/t")["failures"]] == ["item_timeout"],
        "the hub's page says why",
    )


def test_moving_on_returns_what_was_in_hand_uncounted(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("hang", "hang")
    hub.submit("t", command=PLAIN_LOOP)
    soon(lambda: in_hand(queue) == 2, "both are in hand")
    hub.submit("next", command=PLAIN_LOOP)
    hub.post("/api/tasks/next")
    soon(lambda: queue.waiting == 2, "both are back")
    soon(lambda: keys_of(queue) == {"gc:{t:input}:stats"}, "the node has left the queue")
    assert queue.redis.hgetall("gc:{t:input}:stats").keys() == {"taken", "returned"}


def test_a_node_that_stops_in_order_leaves_nothing_behind(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("hang", *map(str, range(20_000)))
    hub.submit("t", command=PLAIN_LOOP)
    soon(lambda: len(queue.results) > 100, "it is at work")
    node.terminate()
    done = len(queue.results)
    assert queue.waiting + done == 20_001
    assert len(set(queue.results)) == done
    assert keys_of(queue) == {"gc:{t:input}:stats"}


def test_a_killed_agent_starts_again_and_takes_up_where_it_was(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    items = [str(number) for number in range(20_000)]
    queue.push(*items)
    hub.submit("t", command=PLAIN_LOOP)
    soon(lambda: len(queue.results) > 1_000, "it is at work")
    node.kill()
    assert in_hand(queue) > 0
    node.start()
    queue.wait_for(*items, within_s=40)
    soon(lambda: in_hand(queue) == 0, "nothing is leased")


def test_auto_advance_moves_on_when_the_last_item_is_done_and_not_before(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("hang", *map(str, range(100)))
    hub.submit("t", command=PLAIN_LOOP, auto_advance=True, item_timeout=4, max_attempts=1)
    soon(lambda: len(queue.results) == 100, "all but one are done")
    assert hub.get("/api/tasks")["current"] == "t", "one is in hand"
    soon(lambda: hub.get("/api/tasks")["current"] is None, "it is dead, and the fleet moves on")
    assert queue.redis.llen("gc:{t:input}:dead") == 1
    assert "task_drained" in tail(hub.log_path)
