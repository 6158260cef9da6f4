"""A node's life, with the process runtime: quick to start, and the same agent as with Docker."""

import re
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support import workers
from tests.support.processes import tail
from tests.support.programs import HubProgram, NodeProgram
from tests.support.queues import Queue
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
def queue(redis_server: RedisServer) -> Iterator[Queue]:
    queue = Queue(redis_server, "t")
    yield queue
    queue.redis.close()


@pytest.fixture
def node(hub: HubProgram) -> Iterator[NodeProgram]:
    with NodeProgram(hub.url, node_id="n", runtime="process", parallelism=2) as node:
        wait_registered(hub, "n")
        yield node


def wait_registered(hub: HubProgram, node_id: str) -> None:
    wait_until(
        lambda: any(n["id"] == node_id for n in hub.nodes()),
        within_s=20,
        what=f"{node_id} is registered",
    )


def wait_active(hub: HubProgram, count: int, *, node_id: str = "n") -> None:
    wait_until(
        lambda: hub.node(node_id)["active_containers"] == count,
        within_s=20,
        what=f"{node_id} has {count} active runs",
    )


def wait_for_looks_of_the_hub(queue: Queue) -> None:
    """The hub looks at the running task once a second: several times, from now on."""

    def last_look_ms() -> int:
        return int(str(queue.redis.hget("gc:{hub}:service", "last") or 0))

    before = last_look_ms() or int(time.time() * 1000)
    wait_until(lambda: last_look_ms() > before + 3000, within_s=15, what="the hub has looked")


def children(node: NodeProgram) -> list[psutil.Process]:
    return psutil.Process(node.process.pid).children(recursive=True)


def test_the_queue_is_drained_with_one_core_for_each_run(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push(*range(500))

    hub.submit_direct("t", command=workers.DRAIN)

    queue.wait_for(*(f"{n}:1" for n in range(500)))
    wait_active(hub, 0)
    assert hub.node("n")["runtime_status"] == "Idle"
    assert hub.task("t")["failures"] == []


def test_with_an_empty_queue_nothing_runs_until_there_is_work(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    hub.submit_direct("t", command=workers.DRAIN)
    node.wait_logged("assigned task=t")
    wait_until(lambda: hub.node("n")["task"] == "t", within_s=10, what="the crew is in place")
    assert [slot["starts"] for slot in hub.node("n")["slots"]] == [0, 0]

    queue.push("a")

    queue.wait_for("a:1")
    wait_active(hub, 0)
    assert sum(slot["starts"] for slot in hub.node("n")["slots"]) == 1
    assert children(node) == []


def test_a_run_that_exits_0_with_work_left_is_started_again_at_once(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push(*range(12))

    hub.submit_direct("t", command=workers.ONE_ITEM)

    queue.wait_for(*(str(n) for n in range(12)))
    wait_active(hub, 0)
    slots = hub.node("n")["slots"]
    assert sum(slot["starts"] for slot in slots) >= 12
    assert [slot["failures"] for slot in slots] == [0, 0]


def test_a_crash_is_reported_with_its_last_lines_and_backed_off(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push(*range(50))

    hub.submit_direct("t", command=workers.CRASH)

    wait_until(lambda: len(hub.task("t")["failures"]) >= 4, within_s=20, what="four crashes")
    failure = hub.task("t")["failures"][-1]
    assert failure["reason"] == "exit"
    assert failure["exit_code"] == 1
    assert "about to fail" in failure["log_lines"]
    assert "ValueError: item 7 is bad" in failure["log_lines"]
    # Two slots, pauses of about 1 s and then 2 s: without them all 50 would be gone by now.
    assert queue.waiting >= 40
    by_slot: dict[int, list[str]] = {}
    for failure in hub.task("t")["failures"]:
        by_slot.setdefault(failure["slot"], []).append(failure["at"])
    assert set(by_slot) == {0, 1}


def test_a_run_that_needs_too_much_memory_is_ended_and_reported(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("a")

    hub.submit_direct("t", command=workers.EAT_MEMORY)

    wait_until(lambda: hub.task("t")["failures"], within_s=20, what="the failure is reported")
    failure = hub.task("t")["failures"][0]
    assert failure["reason"] == "out_of_memory"
    assert "container_memory in gridnode.toml" in failure["message"]
    assert queue.results == ["eating"]


def test_a_command_that_does_not_exist_is_named_and_the_next_task_runs(
    hub: HubProgram, node: NodeProgram, redis_server: RedisServer, queue: Queue
) -> None:
    queue.push("a")
    hub.submit_direct("t", command=["/no/such/program"])
    wait_until(lambda: hub.task("t")["failures"], within_s=20, what="the failure is reported")
    assert "cannot run '/no/such/program'" in hub.task("t")["failures"][0]["log_lines"][0]

    after = Queue(redis_server, "after")
    after.push("b")
    hub.submit_direct("after", command=workers.DRAIN)
    hub.post("/api/tasks/next")

    after.wait_for("b:1")
    assert queue.waiting == 1
    after.redis.close()


def test_a_program_that_ignores_the_queue_is_not_started_without_end(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("a", "b", "c")

    hub.submit_direct("t", command=["true"])

    wait_until(lambda: hub.task("t")["failures"], within_s=20, what="the failure is reported")
    failure = hub.task("t")["failures"][0]
    assert failure["reason"] == "fruitless"
    assert "took nothing from the input queue" in failure["message"]
    assert queue.waiting == 3


def test_on_a_task_switch_every_run_gets_sigterm_and_time_to_finish(
    hub: HubProgram, node: NodeProgram, redis_server: RedisServer, queue: Queue
) -> None:
    queue.push(*range(4))
    hub.submit_direct("t", command=workers.WAIT_FOR_SIGNAL)
    queue.wait_for("started", "started")
    after = Queue(redis_server, "after")
    after.push("b")
    hub.submit_direct("after", command=workers.DRAIN)

    hub.post("/api/tasks/next")

    queue.wait_for("started", "started", "terminated", "terminated")
    after.wait_for("b:1")
    assert queue.waiting == 2
    assert hub.task("t")["failures"] == []
    after.redis.close()


def test_what_ignores_sigterm_is_killed_after_stop_timeout(
    hub: HubProgram, redis_server: RedisServer, queue: Queue
) -> None:
    with NodeProgram(
        hub.url, node_id="n", runtime="process", parallelism=1, stop_timeout=0.5
    ) as node:
        queue.push("a")
        hub.submit_direct("t", command=workers.IGNORE_SIGTERM)
        queue.wait_for("started")

        hub.post("/api/tasks/finish")

        node.wait_logged("stop_timeout")
        wait_until(lambda: not children(node), within_s=10, what="nothing runs")
        assert sorted(queue.results) == ["ignored", "started"]


def test_a_waiting_node_that_is_asked_to_stop_is_gone_within_moments(
    hub: HubProgram, node: NodeProgram
) -> None:
    hub.post("/api/nodes/n/stop")

    assert node.wait_ended(within_s=10) == 0
    assert "stopping reason=" in node.log
    assert hub.nodes() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_node_in_order(
    hub: HubProgram, node: NodeProgram, queue: Queue, number: signal.Signals
) -> None:
    queue.push(1, 2)
    hub.submit_direct("t", command=workers.WAIT_FOR_SIGNAL)
    queue.wait_for("started", "started")
    runs = children(node)

    node.process.send_signal(number)

    assert node.wait_ended(within_s=15) == 0
    queue.wait_for("started", "started", "terminated", "terminated")
    assert hub.nodes() == []
    assert not [run for run in runs if run.is_running()]


def test_a_stopping_node_is_not_taken_for_lost_while_its_runs_finish(
    redis_server: RedisServer, queue: Queue
) -> None:
    """The bug of others: heartbeats end with the first signal, and the hub gives the node up."""
    with (
        HubProgram(redis_url=redis_server.url, node_grace=0.5, outage_grace=0) as hub,
        NodeProgram(
            hub.url,
            node_id="n",
            runtime="process",
            parallelism=1,
            heartbeat_interval=0.3,
            stop_timeout=4,
        ) as node,
    ):
        queue.push("a")
        hub.submit_direct("t", command=workers.IGNORE_SIGTERM)
        queue.wait_for("started")

        node.process.send_signal(signal.SIGTERM)

        node.wait_logged("stopping")
        assert node.wait_ended(within_s=20) == 0
        assert "node_lost" not in hub.log
        assert "node_left node=n" in hub.log


def test_a_second_signal_does_not_wait_for_anything(
    hub: HubProgram, redis_server: RedisServer, queue: Queue
) -> None:
    with NodeProgram(
        hub.url, node_id="n", runtime="process", parallelism=1, stop_timeout=600
    ) as node:
        queue.push("a")
        hub.submit_direct("t", command=workers.IGNORE_SIGTERM)
        queue.wait_for("started")
        (run,) = [p for p in children(node) if p.is_running()]
        node.process.send_signal(signal.SIGINT)
        queue.wait_for_result("ignored")

        node.process.send_signal(signal.SIGINT)

        node.wait_ended(within_s=15)
        assert not run.is_running()


def test_a_killed_agent_leaves_nothing_running_and_is_online_again_after_a_start(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push(1, 2, 3, 4)
    hub.submit_direct("t", command=workers.WAIT_FOR_SIGNAL)
    queue.wait_for("started", "started")
    runs = children(node)

    node.kill()

    wait_until(
        lambda: not [run for run in runs if run.is_running() and run.status() != "zombie"],
        within_s=10,
        what="the kernel has ended the runs",
    )
    node.start()
    queue.wait_for_result("started", times=4)
    assert [n["id"] for n in hub.nodes()] == ["n"]


def test_a_node_goes_on_while_its_hub_is_away_and_is_back_by_itself(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("a", "b")
    hub.submit_direct("t", command=workers.WAIT_FOR_SIGNAL)
    queue.wait_for("started", "started")
    before = sorted(run.pid for run in children(node))

    hub.kill()
    node.wait_logged("heartbeat_failed")
    hub.start()

    node.wait_logged("hub_back")
    wait_active(hub, 2)
    assert sorted(run.pid for run in children(node)) == before
    hub.post("/api/tasks/finish")
    queue.wait_for("started", "started", "terminated", "terminated")


def test_a_node_that_the_hub_has_forgotten_registers_again_with_its_id(
    hub: HubProgram, node: NodeProgram, redis_server: RedisServer, queue: Queue
) -> None:
    queue.redis.delete(*queue.redis.keys("gc:{hub}:*"))

    wait_registered(hub, "n")

    queue.push("a")
    hub.submit_direct("t", command=workers.DRAIN)
    queue.wait_for("a:1")


def test_a_node_waits_for_a_hub_that_is_not_there_yet(
    queue: Queue, redis_server: RedisServer
) -> None:
    hub = HubProgram(redis_url=redis_server.url)
    with NodeProgram(hub.url, runtime="process") as node:
        node.wait_logged("hub_unreachable")
        try:
            hub.start()

            node_id = node.saved_id()
            wait_registered(hub, node_id)
        finally:
            hub.close()


def test_a_redis_that_dies_is_reported_and_the_work_goes_on_when_it_is_back(
    hub: HubProgram,
) -> None:
    with (
        RedisServer() as elsewhere,
        NodeProgram(hub.url, node_id="n", runtime="process", parallelism=1) as node,
    ):
        hub.submit_direct("t", command=workers.DRAIN, input_redis=elsewhere.url)
        node.wait_logged("assigned task=t")
        elsewhere.kill()

        wait_until(
            lambda: hub.node("n")["runtime_status"] == "Error", within_s=15, what="the node says so"
        )
        assert "The input queue cannot be looked at" in hub.node("n")["error"]
        elsewhere.start()
        queue = Queue(elsewhere, "t")
        queue.push("a")

        queue.wait_for("a:1")
        wait_until(lambda: not hub.node("n")["error"], within_s=10, what="all is well again")
        queue.redis.close()


def test_auto_advance_moves_the_fleet_on_when_all_is_done_and_not_before(
    hub: HubProgram, node: NodeProgram, redis_server: RedisServer, queue: Queue
) -> None:
    hub.submit_direct("t", command=workers.DRAIN, auto_advance=True)
    hub.submit_direct("after", command=workers.DRAIN)
    node.wait_logged("assigned task=t")
    held = workers.python(
        "take(); give('taken')\nwhile not target.exists('go on'): time.sleep(0.01)\ngive('done')"
    )
    hub.post("/api/tasks/finish")
    hub.submit_direct("held", command=held, auto_advance=True)
    hub.submit_direct("last", command=workers.DRAIN)
    hub.post("/api/tasks/finish")
    assert hub.get("/api/tasks")["current"] == "held"

    of_held = Queue(redis_server, "held")
    of_held.push("only one")
    of_held.wait_for("taken")
    # The queue is empty now, but an item is in flight: two looks of the hub must not move it on.
    wait_for_looks_of_the_hub(queue)
    assert hub.get("/api/tasks")["current"] == "held"
    queue.redis.set("go on", 1)

    wait_until(
        lambda: hub.get("/api/tasks")["current"] == "last", within_s=15, what="the fleet moves on"
    )
    of_held.wait_for("taken", "done")
    assert hub.task("held")["failures"] == []
    of_held.redis.close()


def test_without_auto_advance_a_person_decides(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("a")
    hub.submit_direct("t", command=workers.DRAIN)
    hub.submit_direct("after", command=workers.DRAIN)
    queue.wait_for("a:1")
    wait_active(hub, 0)

    wait_for_looks_of_the_hub(queue)

    assert hub.get("/api/tasks")["current"] == "t"


def test_auto_advance_waits_for_the_first_items(
    hub: HubProgram, node: NodeProgram, redis_server: RedisServer, queue: Queue
) -> None:
    """An empty queue that was never filled is not a drained one: its owner is about to push."""
    hub.submit_direct("t", command=workers.DRAIN, auto_advance=True)
    hub.submit_direct("after", command=workers.DRAIN)
    wait_for_looks_of_the_hub(queue)
    assert hub.get("/api/tasks")["current"] == "t"

    queue.push("a")

    wait_until(
        lambda: hub.get("/api/tasks")["current"] == "after", within_s=15, what="the fleet moves on"
    )
    queue.wait_for("a:1")


def test_a_wrong_token_is_an_error_that_says_what_to_do(hub: HubProgram) -> None:
    node = NodeProgram(hub.url, token="wrong", runtime="process")
    ended = node.run()
    node.close()

    assert ended.returncode == 78
    assert "the hub does not accept this node's token" in ended.stderr
    assert "Copy the token from the hub's computehub.toml into gridnode.toml" in ended.stderr
    assert hub.nodes() == []


def test_an_address_that_is_no_hub_is_an_error_that_says_so(redis_server: RedisServer) -> None:
    with NodeProgram(f"http://127.0.0.1:{redis_server.port}", runtime="process") as node:
        log = node.wait_logged("hub_unreachable")
        assert "Check server_url in gridnode.toml" in log


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('server_url = "http://h:1"\ntoken = "t"\nparalelism = 2', "line 3, key 'paralelism'"),
        ('server_url = "http://h:1"\ntoken = "t"\nparalelism = 2', "Did you mean 'parallelism'?"),
        ('server_url = "http://h:1"\n\ntoken = "t"\nstop_timeout = "long"', "line 4"),
        ('server_url = "http://h:1"\n\ntoken = "t"\nstop_timeout = "long"', "found 'long'"),
        ('server_url = "h:1"\ntoken = "t"', "line 1, key 'server_url': found 'h:1'"),
        ('server_url = "http://h:1"\ntoken = ""', "it is empty: copy the token"),
        ('server_url = "http://h:1"\ntoken = secret', "line 2: it is not TOML"),
        (
            'server_url = "http://h:1"\ntoken = "secret "',
            "a value not shown here: it holds a blank",
        ),
        ('server_url = "http://me:pw@h:1"\ntoken = "t"', 'write it as "http://hub.example'),
        ('[node]\nserver_url = "http://h:1"', "there is a section [node]"),
        ('server_url = "http://h:1"', "key 'token': it is not there"),
    ],
)
def test_a_broken_config_names_file_line_key_and_what_was_found(config: str, said: str) -> None:
    node = NodeProgram("http://unused")
    node.config_path.write_text(config)
    ended = node.run()
    node.close()

    assert ended.returncode == 78
    assert str(node.config_path) in ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_first_start_writes_a_config_and_says_what_to_fill_in() -> None:
    node = NodeProgram("http://unused")
    node.config_path.unlink()
    first, second = node.run(), node.run()
    text = node.config_path.read_text()
    node.close()

    assert first.returncode == second.returncode == 78
    assert f"{node.config_path} has been written" in first.stderr
    assert "Fill in server_url and token" in first.stderr
    assert "still the example" in second.stderr
    assert "# parallelism = 4" in text


def test_the_id_from_the_hub_is_saved_without_touching_the_owners_comments(
    hub: HubProgram,
) -> None:
    node = NodeProgram(hub.url, runtime="process")
    mine = "# my Pi, in the cellar\n" + node.config_path.read_text() + "# the end\n"
    node.config_path.write_text(mine)
    with node:
        node_id = node.saved_id()
        assert node.config_path.read_text().replace(f'node_id = "{node_id}"\n', "") == mine

        node.terminate()
        node.start()
        wait_registered(hub, node_id)
        assert [n["id"] for n in hub.nodes()] == [node_id]


def test_two_agents_with_one_configuration_do_not_run_side_by_side(
    hub: HubProgram, node: NodeProgram
) -> None:
    second = node.run()

    assert second.returncode == 1
    assert "an agent with this configuration runs already" in second.stderr
    assert hub.node("n")["status"] == "Online"


def test_runs_get_the_environment_of_the_design(
    hub: HubProgram, node: NodeProgram, queue: Queue, redis_server: RedisServer
) -> None:
    queue.push("a")
    hub.submit_direct("t", command=workers.python("take(); give(repr(dict(os.environ)))"))
    wait_until(lambda: queue.results, within_s=20, what="the result")

    environment = eval(queue.results[0])  # noqa: S307  written by the line above

    assert environment["TASK_NAME"] == "t"
    assert environment["NODE_ID"] == "n"
    assert re.fullmatch(r"n-[01]-1", environment["INSTANCE_ID"])
    assert environment["INPUT_REDIS_URL"] == environment["OUTPUT_REDIS_URL"] == redis_server.url
    assert environment["INPUT_QUEUE"] == "t:input"
    assert environment["OUTPUT_QUEUE"] == "t:output"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert "IDM_GRIDCORE_CONFIG" not in environment


def test_output_without_end_fills_nothing_up(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    queue.push("a")
    hub.submit_direct(
        "t",
        command=workers.python(
            "take()\nfor n in range(200_000): print('x' * 100)\n"
            "print('y' * 1_000_000)\ngive('done')"
        ),
    )

    queue.wait_for("done")
    wait_active(hub, 0)
    assert hub.task("t")["failures"] == []
    assert psutil.Process(node.process.pid).memory_info().rss < 150_000_000, tail(node.log_path)


def test_what_a_run_leaves_in_the_background_goes_with_it(
    hub: HubProgram, node: NodeProgram, queue: Queue
) -> None:
    mark = f"{time.time_ns()}"
    queue.push("a")
    script = f"take(); os.system('sleep 987.{mark[-6:]} &'); give('done')"
    hub.submit_direct("t", command=workers.python(script))

    queue.wait_for("done")
    wait_active(hub, 0)

    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if f"987.{mark[-6:]}" in (p.info["cmdline"] or [])
    ]
    assert not left


def test_a_fleet_that_moves_on_quickly_hangs_nowhere(
    hub: HubProgram, node: NodeProgram, redis_server: RedisServer
) -> None:
    """redis-py waits by asyncio.wait_for if it has a socket timeout, and on Python 3.11 that now
    and then swallows a cancellation: a crew never ended, and every later task waited for it."""
    for number in range(40):
        hub.submit_direct(f"task-{number}", command=workers.DRAIN)
    for _ in range(39):
        hub.post("/api/tasks/finish")

    last = Queue(redis_server, "task-39")
    last.push("a")
    last.wait_for("a:1")
    last.redis.close()
