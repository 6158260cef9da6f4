"""Two machines with one node id, as a copied disk makes them: each gets an id of its own.

The copy is only a voice here: on one machine two agents with one id would end each other's runs.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.acceptance.test_agent_calls import beat, register
from tests.support import workers
from tests.support.programs import HubProgram, NodeProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as store:
        yield store


@pytest.fixture
def original(hub: HubProgram) -> Iterator[NodeProgram]:
    with NodeProgram(
        hub.url, node_id="twin", runtime="process", parallelism=1, stop_timeout=5
    ) as node:
        yield node


def active(hub: HubProgram) -> dict[str, int]:
    return {node["id"]: node["active_containers"] for node in hub.nodes()}


def test_the_earlier_one_stops_in_order_and_goes_on_under_a_new_id(
    hub: HubProgram, original: NodeProgram, store: Any
) -> None:
    store.lpush("t:input", *range(10))
    hub.submit("t", command=workers.WAIT_FOR_SIGNAL, delivery="direct")
    wait_until(lambda: "started" in store.lrange("t:output", 0, -1), within_s=20, what="it works")

    register(hub, "twin", agent="copy", hostname="copy")
    original.wait_logged("WARNING gridnode node_id_taken node=twin")
    original.wait_logged('stopping reason="another agent has this node\'s id"')
    new_id = wait_until(
        lambda: next(iter(active(hub).keys() - {"twin"}), ""),
        within_s=20,
        what="the original joins again",
    )
    wait_until(
        lambda: store.lrange("t:output", 0, -1) == ["started", "terminated", "started"],
        within_s=20,
        what="it works again",
    )
    wait_until(lambda: active(hub)[new_id] == 1, within_s=20, what="and says so")

    assert f'node_id = "{new_id}"' in original.config_path.read_text()
    assert hub.node("twin")["hostname"] == "copy"
    assert beat(hub, "twin", agent="copy")["superseded"] is False
    assert hub.log.count("node_id_shared node=twin") == 1
    assert original.terminate() == 0
    assert set(active(hub)) == {"twin"}


def test_one_that_is_stopped_while_it_changes_its_id_ends(
    hub: HubProgram, original: NodeProgram, store: Any
) -> None:
    store.lpush("t:input", *range(10))
    hub.submit("t", command=workers.IGNORE_SIGTERM, delivery="direct")
    wait_until(lambda: "started" in store.lrange("t:output", 0, -1), within_s=20, what="it works")
    register(hub, "twin", agent="copy")
    original.wait_logged("stopping reason=")

    assert original.terminate() == 0

    assert original.log.count("INFO    gridnode registered") == 1
    assert set(active(hub)) == {"twin"}
