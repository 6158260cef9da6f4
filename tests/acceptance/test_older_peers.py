"""Our node with a hub that knows only the wire table of the design, and nothing of our additions.

(The other way round, our hub with an agent that knows only the table, is test_agent_calls.py.)
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.docker_engine import DockerEngine
from tests.support.programs import TOKEN, NodeProgram
from tests.support.queues import Queue
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


class TableHub(ThreadingHTTPServer):
    """Answers the agents' three calls as the table says, at once, and anything else with 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        self.task: dict[str, Any] | None = None
        self.heartbeats: list[dict[str, Any]] = []
        self.registered: list[dict[str, Any]] = []
        self.stop_requested = False
        self.questions = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Calls(BaseHTTPRequestHandler):
    server: TableHub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/gridnode/register":
            self.server.registered.append(body)
            self._answer({"node_id": "given", "current_task": self.server.task})
        elif self.path == "/gridnode/heartbeat":
            self.server.heartbeats.append(body)
            self._answer({"stop_requested": self.server.stop_requested})
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        path, _, _query = self.path.partition("?")
        if path == "/gridnode/task":
            self.server.questions += 1
            self._answer(self.server.task)
        else:
            self.send_error(404)

    def _answer(self, value: Any) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_error(401)
            return
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def table_hub() -> Iterator[TableHub]:
    hub = TableHub()
    serving = threading.Thread(target=hub.serve_forever)
    serving.start()
    yield hub
    hub.shutdown()
    serving.join()
    hub.server_close()


def task(image: str, redis_url: str, name: str) -> dict[str, Any]:
    return {
        "task_name": name,
        "image": image,
        "redis_url": None,
        "input_redis": redis_url,
        "output_redis": redis_url,
        "input_queue": f"{name}:input",
        "output_queue": f"{name}:output",
    }


def test_a_node_works_for_a_hub_that_knows_only_the_table(
    table_hub: TableHub,
    redis_for_containers: RedisServer,
    docker_engine: DockerEngine,
    consumer_tag: str,
) -> None:
    url = redis_for_containers.url_at(docker_engine.gateway)
    first, second = Queue(redis_for_containers, "first"), Queue(redis_for_containers, "second")
    first.push(1, 2, 3)
    second.push(4)
    table_hub.task = task(consumer_tag, url, "first")
    with NodeProgram(
        table_hub.url, parallelism=1, environment={"DOCKER_HOST": docker_engine.host}
    ) as node:
        first.wait_for("1:x86_64:1", "2:x86_64:1", "3:x86_64:1")
        assert node.saved_id() == "given"

        table_hub.task = task(consumer_tag, url, "second")
        second.wait_for("4:x86_64:1")

        assert table_hub.registered[0]["architecture"] == "x86_64"
        assert {"node_id", "status", "active_containers"} <= table_hub.heartbeats[0].keys()
        assert {beat["status"] for beat in table_hub.heartbeats} <= {"Running", "Idle"}
        table_hub.stop_requested = True
        assert node.wait_ended(within_s=20) == 0
    first.redis.close()
    second.redis.close()


def test_a_hub_that_answers_at_once_is_not_asked_without_end(table_hub: TableHub) -> None:
    with NodeProgram(table_hub.url, runtime="process", heartbeat_interval=1):
        wait_until(lambda: len(table_hub.heartbeats) >= 4, within_s=20, what="some seconds pass")

        assert 1 <= table_hub.questions <= len(table_hub.heartbeats) + 2
