"""The task calls of the wire table, as a script written against it sees them."""

from typing import Any

import pytest

from tests.support.leasing import Leasing
from tests.support.programs import HubProgram
from tests.support.redis_server import RedisServer


def refused(hub: HubProgram, status: int, **body: Any) -> str:
    """The sentence with which the hub refuses a task."""
    response = hub.http.post("/api/tasks", json=body)
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


def test_the_first_task_starts_at_once_and_the_others_wait_in_order(hub: HubProgram) -> None:
    for name in ("first", "second", "third"):
        assert hub.http.post("/api/tasks", json={"name": name, "image": "i"}).status_code == 201

    tasks = hub.get("/api/tasks")

    assert tasks["current"] == "first"
    assert tasks["pending"] == ["second", "third"]
    assert tasks["completed"] == []


def test_next_moves_on_until_there_is_none_to_go_to(hub: HubProgram) -> None:
    hub.submit("first", image="i")
    hub.submit("second", image="i")

    assert hub.post("/api/tasks/next") == {"previous": "first", "current": "second"}
    refusal = hub.http.post("/api/tasks/next")

    assert refusal.status_code == 400
    assert "no task is waiting" in refusal.json()["detail"]
    tasks = hub.get("/api/tasks")
    assert (tasks["current"], tasks["completed"]) == ("second", ["first"])


def test_finish_ends_the_running_task_and_starts_the_next(hub: HubProgram) -> None:
    hub.submit("first", image="i")
    hub.submit("second", image="i")

    finished = hub.post("/api/tasks/finish")
    last = hub.post("/api/tasks/finish")

    assert (finished["completed"], finished["started"]) == ("first", "second")
    assert (last["completed"], last["started"]) == ("second", None)
    assert isinstance(finished["message"], str)
    assert hub.http.post("/api/tasks/finish").status_code == 400
    assert hub.get("/api/tasks")["completed"] == ["first", "second"]


def test_a_task_starts_at_once_when_all_before_it_are_done(hub: HubProgram) -> None:
    hub.submit("first", image="i")
    hub.post("/api/tasks/finish")

    assert hub.submit("second", image="i")["state"] == "running"


def test_a_completed_task_can_be_submitted_again_but_a_live_one_cannot(hub: HubProgram) -> None:
    hub.submit("again", image="i")
    assert "runs or waits already" in refused(hub, 409, name="again", image="i")
    hub.submit("waiting", image="i")
    assert "runs or waits already" in refused(hub, 409, name="waiting", image="i")

    hub.post("/api/tasks/finish")
    hub.submit("again", image="i")

    tasks = hub.get("/api/tasks")
    assert (tasks["current"], tasks["pending"]) == ("waiting", ["again"])
    assert tasks["completed"] == []


def test_queues_and_redis_have_the_defaults_of_the_design(hub: HubProgram) -> None:
    hub.submit("plain", image="i")
    hub.submit("elsewhere", image="i", input_redis="redis://:pw@in:7000/1", input_queue="work")

    plain, elsewhere = hub.task("plain"), hub.task("elsewhere")

    assert (plain["input_queue"], plain["output_queue"]) == ("plain:input", "plain:output")
    assert elsewhere["input_redis"] == elsewhere["output_redis"] == "redis://:***@in:7000/1"
    assert (elsewhere["input_queue"], elsewhere["output_queue"]) == ("work", "elsewhere:output")


def test_what_was_asked_of_the_delivery_is_shown(hub: HubProgram) -> None:
    asked = {
        "ack": "explicit",
        "item_timeout": 60.5,
        "max_attempts": 5,
        "alone_after_failure": False,
        "keys": ["counters:*"],
        "constants": ["functions:*"],
        "network": "bridge",
    }
    hub.submit("plain", image="i")
    hub.submit("asking", image="i", **asked)
    hub.submit("direct", image="i", delivery="direct")

    plain, asking, direct = hub.task("plain"), hub.task("asking"), hub.task("direct")

    assert {key: asking[key] for key in asked} == asked
    assert {key: plain[key] for key in asked} == {
        "ack": "next",
        "item_timeout": None,
        "max_attempts": 3,
        "alone_after_failure": True,
        "keys": [],
        "constants": [],
        "network": "none",
    }
    assert (plain["delivery"], direct["delivery"]) == ("leased", "direct")


def test_the_lengths_say_where_the_items_of_a_leased_task_are(
    hub: HubProgram, redis_server: RedisServer
) -> None:
    hub.submit("t", image="i")
    hub.submit("direct", image="i", delivery="direct")
    with Leasing(redis_server, "t:input") as leasing:
        leasing.push(*"abcdefg")
        _kept, failed, done = leasing.take("one", 3)
        leasing.fail("one", failed, delay_ms=3_600_000)
        assert leasing.commit("one", done, output="t:output")
        leasing.take("two", 1)
        leasing.kill("two", "bad")
        leasing.be_handed_while_frozen("two")

    lengths = hub.task("t")["queues"]

    waiting, retrying, leased, dead, output = 2, 1, 3, 1, 1
    assert lengths == {
        "input": waiting,
        "output": output,
        "retrying": retrying,
        "leased": leased,
        "dead": dead,
        "error": None,
    }
    assert hub.task("direct")["queues"]["leased"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "t"}, "has nothing to run: give it 'image', 'images'"),
        ({"image": "i"}, "name: Field required"),
        ({"name": "a b", "image": "i"}, "cannot be part of a container's name"),
        ({"name": "-t", "image": "i"}, "cannot be part of a container's name"),
        ({"name": "t", "images": {"linux/riscv64": "i"}}, "use one of linux/amd64, linux/arm64"),
        ({"name": "t", "image": "i", "input_redis": "http://x"}, "Write it as redis://"),
        ({"name": "t", "image": "i", "input_redis": "redis://h/x"}, "no database number"),
        ({"name": "t", "image": "i", "output_queue": "t:input"}, "results would be taken as items"),
        ({"name": "t", "image": "i", "auto_advnace": True}, "there is no such field"),
        ({"name": "t", "image": "two words"}, "no image reference"),
        ({"name": "t", "image": "My/Image:1"}, "the name in lower case"),
        ({"name": "t", "command": []}, "command"),
        ({"name": "t", "command": "python x.py"}, "it must be a list"),
        ({"name": "t", "command": ["a\0b"]}, "it holds a NUL"),
        ({"name": "t", "image": "i", "input_queue": "a\0b"}, "it holds a NUL"),
        ({"name": "t", "image": "i", "alone_after_failure": "perhaps"}, "alone_after_failure: "),
        ({"name": "t", "image": "i", "constants": [""]}, "constants.0: "),
        ({"name": "t", "image": "i", "constants": "f:*"}, "it must be a list"),
        (
            {"name": "t", "image": "i", "delivery": "direct", "constants": ["f:*"]},
            "'constants' is the gateway's affair",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_change(
    hub: HubProgram, body: dict[str, Any], said: str
) -> None:
    assert said in refused(hub, 422, **body)
    assert hub.get("/api/tasks")["current"] is None


def test_a_body_that_is_not_json_is_refused_in_words(hub: HubProgram) -> None:
    as_json = {"Content-Type": "application/json"}
    broken = hub.http.post("/api/tasks", content="{name: t}", headers=as_json)
    unnamed = hub.http.post("/api/tasks", content='{"name": "t"}')

    assert (broken.status_code, unnamed.status_code) == (422, 422)
    assert "the body is not JSON: Expecting property name" in broken.json()["detail"]
    assert "Content-Type: application/json" in unnamed.json()["detail"]


def test_no_password_is_ever_shown(hub: HubProgram) -> None:
    secret = "Tr0ub4dor"
    hub.submit("t", image="i", input_redis=f"redis://user:{secret}@127.0.0.1:1/0")

    shown = [
        hub.http.get("/api/tasks/t").text,
        refused(hub, 422, name="u", image="i", input_redis=f"redis://:{secret}@:99999/0"),
        refused(hub, 422, name="v", image="i", output_redis=f"amqp://me:{secret}@host"),
        hub.log,
    ]

    assert not [text for text in shown if secret in text]
    assert hub.task("t")["queues"]["input"] is None
    assert "redis://user:***@127.0.0.1:1/0" in hub.task("t")["queues"]["error"]


def test_a_running_task_is_deleted_only_by_force(hub: HubProgram) -> None:
    hub.submit("running", image="i")
    hub.submit("waiting", image="i")

    refusal = hub.http.delete("/api/tasks/running")
    forced = hub.http.delete("/api/tasks/running", params={"force": True})

    assert (refusal.status_code, forced.status_code) == (409, 200)
    assert "?force=true" in refusal.json()["detail"]
    tasks = hub.get("/api/tasks")
    assert (tasks["current"], tasks["pending"], tasks["completed"]) == ("waiting", [], [])
    assert hub.http.get("/api/tasks/running").status_code == 404


def test_deleting_leaves_the_queues_and_every_other_task_alone(hub: HubProgram) -> None:
    for name in ("running", "one", "two"):
        hub.submit(name, image="i")

    assert hub.http.delete("/api/tasks/one").status_code == 200
    assert hub.http.delete("/api/tasks/one").status_code == 404

    tasks = hub.get("/api/tasks")
    assert (tasks["current"], tasks["pending"]) == ("running", ["two"])


def test_a_task_that_no_node_can_run_says_why(hub: HubProgram) -> None:
    assert "no node is online" in hub.submit("t", image="i")["waiting_for"]
    body = {"hostname": "pi", "architecture": "aarch64", "cpu_count": 4, "runtime": "process"}
    hub.post("/gridnode/register", body)
    assert 'need a "command"' in hub.task("t")["waiting_for"]

    hub.post("/gridnode/register", body | {"runtime": "docker"})
    assert hub.task("t")["waiting_for"] is None


def test_a_call_that_does_not_exist_is_named(hub: HubProgram) -> None:
    for method, path in (("GET", "/api/task"), ("PUT", "/api/tasks")):
        response = hub.http.request(method, path)
        assert response.status_code in (404, 405)
        assert f"{method} {path}" in response.json()["detail"]
        assert response.json()["code"] == "no_such_call"


def test_every_call_but_health_needs_the_token(hub: HubProgram) -> None:
    without, wrong = {"Authorization": ""}, {"Authorization": "Bearer wrong"}

    for method, path in [
        ("GET", "/api/tasks"),
        ("POST", "/api/tasks"),
        ("POST", "/api/tasks/next"),
        ("DELETE", "/api/tasks/t"),
        ("GET", "/api/tasks/t/dead-letters"),
        ("POST", "/api/tasks/t/dead-letters/discard"),
        ("GET", "/api/nodes"),
        ("POST", "/gridnode/register"),
        ("POST", "/gridnode/heartbeat"),
        ("GET", "/gridnode/task?platform=linux/amd64"),
        ("GET", "/no/such/call"),
    ]:
        for headers in (without, wrong):
            response = hub.http.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path)
            assert "Bearer" in response.headers["WWW-Authenticate"]
    health = hub.http.get("/health", headers=without)
    assert (health.status_code, health.text) == (200, "OK")


def test_a_program_finds_out_where_a_tasks_queues_are(
    hub: HubProgram, redis_server: RedisServer
) -> None:
    hub.submit("t", image="i", input_redis="redis://:secret@10.0.0.1:6379/0")
    assert hub.get("/api/tasks/t/queues") == {
        "input_redis": "redis://:secret@10.0.0.1:6379/0",
        "output_redis": "redis://:secret@10.0.0.1:6379/0",
        "input_queue": "t:input",
        "output_queue": "t:output",
    }
    hub.submit("own", image="i")
    assert hub.get("/api/tasks/own/queues")["input_redis"] == redis_server.url
    assert hub.http.get("/api/tasks/other/queues").status_code == 404


def test_the_api_is_described_for_people_and_for_programs(hub: HubProgram) -> None:
    nobody = {"Authorization": ""}
    page = hub.http.get("/docs", headers=nobody)
    interactive = hub.http.get("/docs/interactive", headers=nobody)
    front = hub.http.get("/", headers=nobody)
    description = hub.get("/openapi.json")

    assert page.status_code == 200
    for path, methods in description["paths"].items():
        for method in methods:
            assert f"{method.upper()}</span> <code>{path}</code>" in page.text
    assert "src=" not in page.text, "it needs nothing from elsewhere"
    assert "swagger" in interactive.text
    assert (front.status_code, front.headers["Location"]) == (307, "/docs")
    calls = {
        f"{method.upper()} {path}" for path, by in description["paths"].items() for method in by
    }
    assert calls == {
        "GET /health",
        "POST /api/tasks",
        "GET /api/tasks",
        "GET /api/tasks/{name}",
        "DELETE /api/tasks/{name}",
        "GET /api/tasks/{name}/queues",
        "GET /api/tasks/{name}/dead-letters",
        "GET /api/tasks/{name}/dead-letters/export",
        "POST /api/tasks/{name}/dead-letters/retry",
        "POST /api/tasks/{name}/dead-letters/discard",
        "POST /api/tasks/next",
        "POST /api/tasks/finish",
        "GET /api/nodes",
        "POST /api/nodes/{node_id}/stop",
        "POST /gridnode/register",
        "POST /gridnode/heartbeat",
        "POST /gridnode/goodbye",
        "GET /gridnode/task",
    }
    assert "bearerAuth" in description["components"]["securitySchemes"]
