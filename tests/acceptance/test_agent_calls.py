"""The agents' calls of the wire table, as an agent that knows only that table makes them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from gridcore.wire import STOP_HEADER, VERSION_HEADER
from tests.support.programs import HubProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


def register(hub: HubProgram, node_id: str | None = None, **details: Any) -> dict[str, Any]:
    body = {"node_id": node_id, "hostname": "pi", "architecture": "aarch64", "cpu_count": 4}
    reply: dict[str, Any] = hub.post("/gridnode/register", body | details)
    return reply


def beat(hub: HubProgram, node_id: str, **details: Any) -> dict[str, Any]:
    body = {"node_id": node_id, "status": "Idle", "active_containers": 0}
    reply: dict[str, Any] = hub.post("/gridnode/heartbeat", body | details)
    return reply


@pytest.fixture
def two_hubs(redis_server: RedisServer) -> Iterator[tuple[HubProgram, HubProgram]]:
    with (
        HubProgram(redis_url=redis_server.url) as one,
        HubProgram(redis_url=redis_server.url) as other,
    ):
        yield one, other


def test_a_node_gets_an_id_and_what_runs(hub: HubProgram) -> None:
    hub.submit("t", image="registry/t:1", input_redis="redis://:pw@in:1/0", output_queue="results")

    reply = register(hub)

    assert reply["node_id"]
    task = reply["current_task"]
    assert task["redis_url"] is None
    assert {key: task[key] for key in ("task_name", "image", "input_queue", "output_queue")} == {
        "task_name": "t",
        "image": "registry/t:1",
        "input_queue": "t:input",
        "output_queue": "results",
    }
    assert task["input_redis"] == task["output_redis"] == "redis://:pw@in:1/0"


def test_a_task_comes_with_all_that_concerns_its_delivery(hub: HubProgram) -> None:
    asked = {
        "ack": "exit",
        "item_timeout": 5.0,
        "max_attempts": 7,
        "alone_after_failure": False,
        "keys": ["k"],
        "constants": ["c"],
        "network": "bridge",
    }
    hub.submit("t", image="i", **asked)

    task = register(hub)["current_task"]

    expected = asked | {"delivery": "leased", "lease_s": 30.0}
    assert {key: task[key] for key in expected} == expected


def test_a_node_keeps_the_id_that_it_brings(hub: HubProgram) -> None:
    assert register(hub, "my-pi")["node_id"] == "my-pi"
    assert [node["id"] for node in hub.nodes()] == ["my-pi"]


def test_the_fleet_shows_what_a_heartbeat_said(hub: HubProgram) -> None:
    register(hub, "n")
    assert hub.node("n")["runtime_status"] is None

    assert beat(hub, "n", status="Running", active_containers=3)["stop_requested"] is False

    node = hub.node("n")
    assert node["hostname"] == "pi"
    assert node["architecture"] == "aarch64"
    assert node["cpu_count"] == 4
    assert node["status"] == "Online"
    assert node["runtime_status"] == "Running"
    assert node["active_containers"] == 3
    assert isinstance(node["last_seen"], str)


def test_the_fleet_shows_how_a_node_isolates_and_how_fast_it_works(hub: HubProgram) -> None:
    register(hub, "n")
    assert (hub.node("n")["isolation"], hub.node("n")["work"]) == (None, None)
    work = {
        "taken": 5,
        "committed": 3,
        "aborted": 1,
        "items_per_s": 2.5,
        "seconds_per_item": 0.4,
    }

    beat(hub, "n", isolation="namespace", work=work, version="v")

    node = hub.node("n")
    assert (node["isolation"], node["work"], node["task_version"]) == ("namespace", work, "v")


def test_of_two_agents_with_one_id_the_earlier_one_is_told_to_take_another(
    hub: HubProgram,
) -> None:
    register(hub, "n", agent="first", hostname="original")
    assert beat(hub, "n", agent="first", active_containers=1)["superseded"] is False
    register(hub, "n", agent="second", hostname="copy")
    before = beat(hub, "n", agent="second", active_containers=2)

    told = [beat(hub, "n", agent="first", active_containers=3) for _ in range(2)]
    gone = hub.http.post("/gridnode/goodbye", json={"node_id": "n", "agent": "first"})

    assert before["superseded"] is False
    assert [reply["superseded"] for reply in told] == [True, True]
    assert gone.status_code == 200
    node = hub.node("n")
    assert (node["hostname"], node["active_containers"]) == ("copy", 2)
    assert beat(hub, "n", agent="second")["superseded"] is False
    assert hub.log.count("node_id_shared node=n used_by=copy also_by=127.0.0.1") == 1
    assert "node_left" not in hub.log


def test_an_agent_whose_id_is_anothers_is_no_sign_of_life_of_that_one(
    redis_server: RedisServer,
) -> None:
    with HubProgram(redis_url=redis_server.url, node_grace=0.5, outage_grace=0) as hub:
        register(hub, "n", agent="first", heartbeat_interval=0.3)
        register(hub, "n", agent="second", heartbeat_interval=0.3)

        def is_lost() -> bool:
            beat(hub, "n", agent="first", heartbeat_interval=0.3)
            return bool(hub.node("n")["status"] == "Lost")

        wait_until(is_lost, within_s=15, what="the second agent, which is silent, is lost")


def test_agents_that_do_not_say_which_they_are_are_served_as_ever(hub: HubProgram) -> None:
    register(hub, "n", agent="new")
    register(hub, "n")

    assert beat(hub, "n", agent="new")["superseded"] is False
    assert beat(hub, "n")["superseded"] is False
    register(hub, "n", agent="new")
    assert beat(hub, "n")["superseded"] is False
    hub.post("/gridnode/goodbye", {"node_id": "n"})
    assert hub.nodes() == []


def test_a_node_that_the_hub_does_not_know_is_told_to_register(hub: HubProgram) -> None:
    response = hub.http.post("/gridnode/heartbeat", json={"node_id": "x", "status": "Idle"})

    assert response.status_code == 404
    assert response.json()["code"] == "unknown_node"
    assert "registers again" in response.json()["detail"]
    assert hub.nodes() == []


def test_the_image_is_chosen_by_platform(hub: HubProgram) -> None:
    hub.submit("t", image="any", images={"linux/amd64": "for-amd", "linux/arm/v7": "for-v7"})

    def image(platform: str) -> Any:
        return hub.get("/gridnode/task", platform=platform)["image"]

    assert image("linux/amd64") == "for-amd"
    assert image("linux/arm/v7") == "for-v7"
    assert image("linux/arm64") == "any"


def test_a_task_that_is_not_for_a_platform_is_null_there(hub: HubProgram) -> None:
    hub.submit("t", images={"linux/amd64": "for-amd"})

    assert hub.get("/gridnode/task", platform="linux/arm64") is None
    assert register(hub, architecture="aarch64")["current_task"] is None
    assert register(hub, architecture="x86_64")["current_task"]["image"] == "for-amd"


def test_a_task_with_a_command_alone_is_for_process_nodes(hub: HubProgram) -> None:
    hub.submit("t", command=["true"])

    assert hub.get("/gridnode/task", platform="linux/amd64") is None
    task = hub.get("/gridnode/task", platform="linux/amd64", runtime="process")
    assert task["command"] == ["true"]


def test_a_node_elsewhere_gets_an_address_that_it_can_reach(hub: HubProgram) -> None:
    hub.submit("t", image="i")

    here = hub.get("/gridnode/task", platform="linux/amd64")
    elsewhere = hub.http.get(
        "/gridnode/task", params={"platform": "linux/amd64"}, headers={"Host": "hub.example:8080"}
    ).json()

    assert "@127.0.0.1:" in here["input_redis"] or "//127.0.0.1:" in here["input_redis"]
    assert elsewhere["input_redis"] == here["input_redis"].replace("127.0.0.1", "hub.example")


def test_a_request_to_stop_reaches_the_next_heartbeat(hub: HubProgram) -> None:
    register(hub, "n")

    assert hub.http.post("/api/nodes/n/stop").status_code == 200
    assert hub.http.post("/api/nodes/nobody/stop").status_code == 404

    assert beat(hub, "n")["stop_requested"] is True
    assert hub.node("n")["stop_requested"] is True


def test_a_node_that_starts_again_is_not_stopped_by_an_old_request(hub: HubProgram) -> None:
    register(hub, "n")
    hub.post("/api/nodes/n/stop")

    register(hub, "n")

    assert beat(hub, "n")["stop_requested"] is False


def test_a_node_that_says_goodbye_is_no_longer_listed(hub: HubProgram) -> None:
    register(hub, "n")

    hub.post("/gridnode/goodbye", {"node_id": "n"})

    assert hub.nodes() == []
    assert hub.http.post("/gridnode/goodbye", json={"node_id": "n"}).status_code == 404


class LongPoll:
    """A node that waits, in a thread of its own."""

    def __init__(self, hub: HubProgram, node_id: str = "n") -> None:
        now = hub.http.get("/gridnode/task", params={"platform": "linux/amd64"})
        self._answer: Any = None
        self._thread = threading.Thread(target=self._wait, args=(hub, node_id))
        self.version = now.headers[VERSION_HEADER]
        self._thread.start()

    def _wait(self, hub: HubProgram, node_id: str) -> None:
        self._answer = hub.http.get(
            "/gridnode/task",
            params={
                "platform": "linux/amd64",
                "node_id": node_id,
                "version": self.version,
                "wait": 30,
            },
        )

    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def answer(self) -> Any:
        self._thread.join(timeout=15)
        assert not self._thread.is_alive(), "the poll still waits"
        return self._answer


def test_a_long_poll_answers_when_the_task_changes_and_not_before(hub: HubProgram) -> None:
    hub.submit("first", image="i")
    hub.submit("second", image="i")
    poll = LongPoll(hub)

    hub.submit("third", image="i")
    register(hub, "other")
    assert poll.is_waiting()
    hub.post("/api/tasks/next")

    answer = poll.answer()
    assert answer.json()["task_name"] == "second"
    assert answer.headers[VERSION_HEADER] == answer.json()["version"] != poll.version


def test_a_long_poll_at_one_hub_answers_to_what_is_done_at_another(
    two_hubs: tuple[HubProgram, HubProgram],
) -> None:
    one, other = two_hubs
    one.submit("first", image="i")
    poll = LongPoll(other)

    one.post("/api/tasks/finish")

    answer = poll.answer()
    assert answer.json() is None
    assert answer.headers[VERSION_HEADER] != poll.version


def test_a_request_to_stop_ends_the_wait_of_that_node_alone(hub: HubProgram) -> None:
    hub.submit("t", image="i")
    register(hub, "one")
    register(hub, "other")
    stopped, undisturbed = LongPoll(hub, "one"), LongPoll(hub, "other")

    hub.post("/api/nodes/one/stop")

    assert stopped.answer().headers[STOP_HEADER] == "true"
    assert undisturbed.is_waiting()
    hub.post("/api/tasks/finish")
    assert STOP_HEADER not in undisturbed.answer().headers


def test_a_poll_without_a_version_or_with_an_old_one_answers_at_once(hub: HubProgram) -> None:
    hub.submit("t", image="i")

    for params in ({"wait": 30}, {"wait": 30, "version": "an-old-one"}):
        task = hub.get("/gridnode/task", platform="linux/amd64", **params)
        assert task["task_name"] == "t"


def test_a_hub_that_stops_lets_the_waiting_nodes_go(redis_server: RedisServer) -> None:
    with HubProgram(redis_url=redis_server.url) as hub:
        hub.submit("t", image="i")
        poll = LongPoll(hub)

        assert hub.terminate() == 0

        assert poll.answer().json()["task_name"] == "t"


def test_two_hubs_are_one_hub(two_hubs: tuple[HubProgram, HubProgram]) -> None:
    one, other = two_hubs
    names = [f"t{n}" for n in range(40)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: (one, other)[n % 2].submit(names[n], image="i"), range(40)))
        finished = list(
            pool.map(lambda n: (one, other)[n % 2].post("/api/tasks/finish"), range(40))
        )

    assert sorted(move["completed"] for move in finished) == sorted(names)
    for hub in two_hubs:
        tasks = hub.get("/api/tasks")
        assert (tasks["current"], tasks["pending"]) == (None, [])
        assert sorted(tasks["completed"]) == sorted(names)


def test_many_heartbeats_at_once_each_get_their_own_answer(hub: HubProgram) -> None:
    nodes = [f"n{number}" for number in range(60)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda node: register(hub, node), nodes))
        for node in nodes[::3]:
            hub.post(f"/api/nodes/{node}/stop")

        replies = list(
            pool.map(lambda n: beat(hub, nodes[n], active_containers=n), range(len(nodes)))
        )

    assert [reply["stop_requested"] for reply in replies] == [n % 3 == 0 for n in range(60)]
    assert {node["id"]: node["active_containers"] for node in hub.nodes()} == {
        node: number for number, node in enumerate(nodes)
    }


def test_a_failure_is_kept_with_its_task_and_told_once(hub: HubProgram) -> None:
    hub.submit("t", image="i")
    register(hub, "n")
    failure = {
        "id": "f1",
        "task": "t",
        "reason": "exit",
        "message": "It ended with exit code 3",
        "slot": 1,
        "exit_code": 3,
        "at": "2026-11-20T12:00:00Z",
        "log_lines": ["Traceback", "ValueError: 7"],
    }

    beat(hub, "n", failures=[failure])
    beat(hub, "n", failures=[failure])

    (kept,) = hub.task("t")["failures"]
    assert kept["exit_code"] == 3
    assert kept["log_lines"] == ["Traceback", "ValueError: 7"]
    wait_until(lambda: "task_failure" in hub.log, within_s=5, what="the hub logs the failure")


def test_what_cannot_be_stored_is_its_senders_problem_alone(hub: HubProgram) -> None:
    """A lone surrogate is valid JSON and no valid text: once it ended the hub."""
    register(hub, "n")
    lone = chr(92) + "ud800"
    as_json = {"Content-Type": "application/json"}
    for field in ("task", "version", "error"):
        body = f'{{"node_id": "n", "status": "Idle", "{field}": "{lone}"}}'
        refused = hub.http.post("/gridnode/heartbeat", content=body, headers=as_json)
        assert refused.status_code == 422, field

    assert beat(hub, "n")["stop_requested"] is False


def test_a_body_that_is_far_too_large_is_refused_unread(hub: HubProgram) -> None:
    register(hub, "n")
    huge = {"node_id": "n", "status": "Idle", "task": "x" * 5_000_000}

    assert hub.http.post("/gridnode/heartbeat", json=huge).status_code == 413
    chunked = hub.http.post("/api/tasks", content=iter([b"{}"]))
    assert chunked.status_code == 413
    assert hub.get("/api/tasks")["current"] is None


def test_what_another_version_of_the_hub_has_stored_is_left_out(
    hub: HubProgram, redis_server: RedisServer
) -> None:
    register(hub, "n")
    hub.submit("t", image="i", auto_advance=True)
    stored = '{"name": "t", "image": "i", "auto_advance": true, "delivery": "of tomorrow"}'
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as store:
        store.hset("gc:{hub}:tasks", "t", stored)
        store.hset("gc:{hub}:reports", "n", '{"node_id": "n", "status": "Dreaming"}')
        before = store.hget("gc:{hub}:service", "last")
        wait_until(
            lambda: store.hget("gc:{hub}:service", "last") != before,
            within_s=10,
            what="the hub's loops go on",
        )
        store.hset(
            "gc:{hub}:tasks", "t", stored.replace("of tomorrow", "direct")[:-1] + ', "new": 1}'
        )

    wait_until(lambda: "task_unreadable" in hub.log, within_s=10, what="the hub says what it skips")
    assert hub.task("t")["state"] == "running"
    assert hub.nodes() == []
    assert beat(hub, "n")["stop_requested"] is False
    assert [node["id"] for node in hub.nodes()] == ["n"]
