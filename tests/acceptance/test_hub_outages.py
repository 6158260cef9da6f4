"""What holds when hub or Redis are away, and after they are back."""

import json
import re
import threading
from typing import Any

import httpx
import psutil
import pytest
import redis

from tests.acceptance.test_agent_calls import LongPoll, beat, register
from tests.support.programs import HubProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

OTHERS_INTERVAL = 0.3
"""Heartbeat interval of nodes that are to be found lost soon."""


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def status_of(hub: HubProgram, node_id: str) -> str:
    return str(hub.node(node_id)["status"])


def test_a_node_that_falls_silent_is_lost_and_one_that_reports_is_not(
    redis_server: RedisServer,
) -> None:
    with HubProgram(redis_url=redis_server.url, node_grace=0.7, outage_grace=0) as hub:
        register(hub, "silent", heartbeat_interval=OTHERS_INTERVAL)
        register(hub, "alive", heartbeat_interval=OTHERS_INTERVAL)

        def silent_is_lost() -> bool:
            beat(hub, "alive", heartbeat_interval=OTHERS_INTERVAL)
            assert status_of(hub, "alive") == "Online"
            return status_of(hub, "silent") == "Lost"

        wait_until(silent_is_lost, within_s=15, what="the silent node is lost")

        assert len(re.findall("node_lost node=silent", hub.log)) == 1
        assert "node_lost node=alive" not in hub.log
        beat(hub, "silent", heartbeat_interval=OTHERS_INTERVAL)
        assert status_of(hub, "silent") == "Online"
        assert "node_back node=silent" in hub.log


def test_two_hubs_declare_a_node_lost_once(redis_server: RedisServer) -> None:
    with (
        HubProgram(redis_url=redis_server.url, node_grace=0.2, outage_grace=0) as one,
        HubProgram(redis_url=redis_server.url, node_grace=0.2, outage_grace=0) as other,
    ):
        for number in range(20):
            register(one, f"n{number}", heartbeat_interval=OTHERS_INTERVAL)

        wait_until(
            lambda: {node["status"] for node in other.nodes()} == {"Lost"},
            within_s=15,
            what="all are lost",
        )

        logged = re.findall(r"node_lost node=(\w+)", one.log + other.log)
        assert sorted(logged) == sorted(f"n{number}" for number in range(20))


def test_nobody_is_lost_in_the_first_minutes_after_an_outage_of_the_hub(
    redis_server: RedisServer,
) -> None:
    settings: dict[str, Any] = {"redis_url": redis_server.url, "node_grace": 0.2}
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as store:
        with HubProgram(outage_grace=0, **settings) as hub:
            register(hub, "n", heartbeat_interval=OTHERS_INTERVAL)
            hub.kill()
        # As if the hub had been away for an hour: its last sign of service is that old.
        for field in ("since", "last"):
            store.hincrby("gc:{hub}:service", field, -3_600_000)
        past_deadline = int(store.time()[0]) * 1000 - 1
        store.zadd("gc:{hub}:deadlines", {"n": past_deadline})

        with HubProgram(outage_grace=120, **settings) as hub:
            started_ms = int(store.time()[0]) * 1000
            wait_until(
                lambda: int(store.hget("gc:{hub}:service", "last") or 0) > started_ms + 3_000,
                within_s=15,
                what="the hub has looked for lost nodes more than once",
            )

            assert status_of(hub, "n") == "Online"
            assert "node_lost" not in hub.log


def test_a_hub_that_is_killed_at_any_moment_loses_no_task_that_it_accepted(
    redis_server: RedisServer,
) -> None:
    accepted: list[str] = []
    with HubProgram(redis_url=redis_server.url) as hub:
        enough = threading.Event()

        def submit_until_killed() -> None:
            for number in range(10_000):
                try:
                    hub.submit(f"t{number}", image="i")
                except httpx.TransportError:
                    return
                accepted.append(f"t{number}")
                if number == 30:
                    enough.set()

        submitting = threading.Thread(target=submit_until_killed)
        submitting.start()
        assert enough.wait(20)
        hub.kill()
        submitting.join(timeout=20)
        hub.start()

        tasks = hub.get("/api/tasks")
        known = [tasks["current"], *tasks["pending"]]
        assert known[: len(accepted)] == accepted
        # The one under way may have been accepted without anybody being told; none is half there.
        assert len(known) <= len(accepted) + 1
        for name in known:
            assert hub.task(name)["name"] == name


def test_the_hub_survives_redis_being_away(redis_server: RedisServer) -> None:
    with HubProgram(redis_url=redis_server.url) as hub:
        hub.submit("t", image="i")
        redis_server.kill()

        refusal = hub.http.get("/api/tasks")
        assert refusal.status_code == 503
        assert refusal.json()["code"] == "redis_unavailable"
        assert "Nothing is lost; try again when Redis is back" in refusal.json()["detail"]
        assert refusal.headers["Retry-After"]
        for method, path, body in [
            ("POST", "/api/tasks", {"name": "u", "image": "i"}),
            ("POST", "/api/tasks/next", None),
            ("POST", "/gridnode/heartbeat", {"node_id": "n", "status": "Idle"}),
            ("GET", "/gridnode/task?platform=linux/amd64", None),
        ]:
            assert hub.http.request(method, path, json=body).status_code == 503, path
        assert hub.http.get("/health").text == "OK"

        redis_server.start()

        hub.submit("after", image="i")
        assert hub.get("/api/tasks")["current"] == "after"
        hub.wait_logged("redis_back")
        assert len(re.findall("redis_unavailable", hub.log)) == 1
        poll = LongPoll(hub)
        hub.post("/api/tasks/finish")
        assert poll.answer().json() is None


def test_tasks_and_nodes_survive_a_redis_that_is_killed_and_restarted() -> None:
    with RedisServer(appendonly=True) as server, HubProgram(redis_url=server.url) as hub:
        hub.submit("running", image="i")
        hub.submit("waiting", image="i")
        register(hub, "n")
        with redis.Redis.from_url(server.url) as store:
            store.bgrewriteaof()  # whatever is in memory is on its way to the disk
            wait_until(
                lambda: not store.info("persistence")["aof_rewrite_in_progress"],
                within_s=10,
                what="it is written",
            )
        server.kill()
        server.start()

        tasks = hub.get("/api/tasks")

        assert (tasks["current"], tasks["pending"]) == ("running", ["waiting"])
        assert status_of(hub, "n") == "Online"


def test_a_hub_without_a_redis_runs_its_own_and_restarts_it_when_it_dies() -> None:
    with HubProgram() as hub:
        hub.submit("t", image="i")
        url = hub.run("redis-url").stdout.strip()
        with redis.Redis.from_url(url) as store:
            assert store.config_get("appendonly") == {"appendonly": "yes"}
            assert store.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            server = psutil.Process(store.info("server")["process_id"])
        server.kill()

        hub.wait_logged("store_gone")
        hub.wait_logged("store_started", times=2)
        wait_until(
            lambda: hub.http.get("/api/tasks").is_success, within_s=10, what="the hub serves again"
        )

        assert hub.get("/api/tasks")["current"] == "t"


def test_the_embedded_store_wants_its_password() -> None:
    with HubProgram() as hub:
        url = hub.run("redis-url").stdout.strip()
        without = re.sub(r"//.*@", "//", url)

        with (
            redis.Redis.from_url(without, protocol=2) as store,
            pytest.raises(redis.AuthenticationError, match="Authentication required"),
        ):
            store.ping()
        password = url.split(":")[2].partition("@")[0]
        commands = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"])]
        assert not [c for c in commands if c and password in " ".join(c)]


def test_a_killed_hub_leaves_its_store_running_and_the_next_one_adopts_it() -> None:
    with HubProgram() as hub:
        hub.submit("t", image="i")
        url = hub.run("redis-url").stdout.strip()
        with redis.Redis.from_url(url) as store:
            before = store.info("server")["process_id"]
            hub.kill()

            assert store.ping()
            hub.start()

            assert store.info("server")["process_id"] == before
            assert hub.get("/api/tasks")["current"] == "t"
        assert "store_adopted" in hub.log
        assert hub.terminate() == 0
        wait_until(lambda: not runs(before), within_s=10, what="the last hub has stopped the store")


def test_a_port_that_is_taken_is_named(hub: HubProgram) -> None:
    with_same_port = HubProgram(redis_url="redis://127.0.0.1:1/0", port=hub.port)

    ended = with_same_port.run()
    with_same_port.close()

    assert ended.returncode == 1
    assert f"listening on 127.0.0.1:{hub.port}: Address already in use" in ended.stderr
    assert "change 'bind' in computehub.toml" in ended.stderr


def test_the_first_start_writes_a_commented_file_with_a_random_token() -> None:
    program = HubProgram(redis_url="redis://127.0.0.1:1/0")
    program.config_path.unlink()
    program.environment = {"STATE_DIRECTORY": str(program.folder / "state")}
    try:
        before = program.run("redis-url")
        program.launch()
        program.wait_logged("hub_started|listening on")  # the default port may be taken here

        assert before.returncode == 1
        assert "no hub has been started here yet" in before.stderr
        text = program.config_path.read_text()
        assert re.search(r'^token = "[\w-]{40,}"$', text, re.MULTILINE)
        assert "# Whoever has this token can submit tasks" in text
        assert f'data_dir = "{program.folder / "state"}"' in text
        assert program.config_path.stat().st_mode & 0o077 == 0
    finally:
        program.close()


def test_a_redis_that_is_not_ours_is_neither_adopted_nor_stopped(redis_server: RedisServer) -> None:
    """A server without a password accepts any: only its data folder tells whose it is."""
    hub = HubProgram()
    data = hub.folder / "data"
    data.mkdir()
    settings = {"port": redis_server.port, "password": "x"}
    (data / "store.json").write_text(json.dumps(settings))
    ended = hub.run()
    hub.close()

    assert ended.returncode == 1
    assert f"listens on port {redis_server.port}" in ended.stderr
    assert "store.json" in ended.stderr
    with redis.Redis.from_url(redis_server.url) as store:
        assert store.ping()


def test_with_a_full_redis_tasks_can_be_finished_and_nodes_stopped(
    hub: HubProgram, redis_server: RedisServer
) -> None:
    hub.submit("t", image="i")
    register(hub, "n")
    with redis.Redis.from_url(redis_server.url) as store:
        store.config_set("maxmemory", 1)

        assert hub.get("/api/tasks")["current"] == "t"
        assert hub.node("n")["status"] == "Online"
        assert hub.task("t")["state"] == "running"
        hub.post("/api/nodes/n/stop")
        hub.post("/api/tasks/finish")
        assert hub.get("/api/tasks")["completed"] == ["t"]
