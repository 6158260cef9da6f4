"""A leased task that is drained gives way to the next, and none does before."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_agent_calls import beat, register
from tests.support.fixtures import require
from tests.support.leasing import Leasing
from tests.support.programs import HubProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
def leasing(redis_server: RedisServer) -> Iterator[Leasing]:
    with Leasing(redis_server, "t:input") as leasing:
        yield leasing


def wait_for_looks(leasing: Leasing) -> None:
    """The hub looks at the running task once a second: several times, from now on."""
    now_ms = leasing.now_s() * 1000

    def last_look_ms() -> int:
        return int(leasing.call(leasing.redis.hget("gc:{hub}:service", "last")) or 0)

    wait_until(lambda: last_look_ms() > now_ms + 3_500, within_s=20, what="the hub has looked")


def current(hub: HubProgram) -> Any:
    return hub.get("/api/tasks")["current"]


def wait_advanced(hub: HubProgram) -> None:
    wait_until(lambda: current(hub) is None, within_s=20, what="the task is drained")


def working(**work: int) -> dict[str, Any]:
    return {"task": "t", "status": "Running", "active_containers": 4, "work": work}


def test_it_ends_when_every_item_is_committed_though_runs_wait_for_more(
    hub: HubProgram, leasing: Leasing
) -> None:
    register(hub, "n")
    leasing.push("one", "two")
    hub.submit("t", image="i", auto_advance=True)
    one, two = leasing.take("n", 2)
    leasing.commit("n", one)
    beat(hub, "n", **working(taken=2, committed=1))
    wait_for_looks(leasing)
    assert current(hub) == "t", "a lease is held"

    leasing.commit("n", two)

    wait_advanced(hub)
    hub.wait_logged('INFO    computehub task_drained task=t started="" dead_letters=0')


def test_an_item_that_waits_for_its_next_attempt_is_waited_for_and_a_dead_letter_is_not(
    hub: HubProgram, leasing: Leasing
) -> None:
    leasing.push("bad")
    hub.submit("t", image="i", auto_advance=True)
    (lease,) = leasing.take("n")
    leasing.fail("n", lease, delay_ms=4_000)
    wait_for_looks(leasing)
    assert current(hub) == "t"

    (lease,) = wait_until(lambda: leasing.take("n"), within_s=20, what="it is due")
    leasing.fail("n", lease, max_attempts=2, reason="exit")

    wait_advanced(hub)
    hub.wait_logged("task_drained.* dead_letters=1")
    assert hub.task("t")["queues"]["dead"] == 1


def test_an_item_in_the_hands_of_a_frozen_node_is_waited_for(
    hub: HubProgram, leasing: Leasing
) -> None:
    register(hub, "frozen")
    hub.submit("t", image="i", auto_advance=True)
    leasing.push("one", "two")
    leasing.be_handed_while_frozen("frozen")
    (lease,) = leasing.take("n")
    leasing.commit("n", lease)
    wait_for_looks(leasing)
    assert current(hub) == "t"

    (lease,) = leasing.take("frozen")
    leasing.commit("frozen", lease)

    wait_advanced(hub)


def test_what_a_fast_fleet_did_between_two_looks_was_work(
    hub: HubProgram, leasing: Leasing
) -> None:
    hub.submit("t", image="i", auto_advance=True)
    wait_for_looks(leasing)
    assert current(hub) == "t", "it never had work"

    leasing.push("x")
    (lease,) = leasing.take("n")
    leasing.commit("n", lease)

    wait_advanced(hub)


def test_what_was_all_done_before_the_first_look_is_known_from_reports(
    hub: HubProgram, leasing: Leasing
) -> None:
    register(hub, "n")
    leasing.push("x")
    (lease,) = leasing.take("n")
    leasing.commit("n", lease)
    hub.submit("t", image="i", auto_advance=True)
    wait_for_looks(leasing)
    assert current(hub) == "t", "for all that the hub can know the items were an earlier task's"
    version = hub.get("/api/tasks")["version"]

    beat(hub, "n", **working(taken=1, committed=1), version="an earlier one")
    wait_for_looks(leasing)
    assert current(hub) == "t"
    beat(hub, "n", **working(taken=1, committed=1), version=version)

    wait_advanced(hub)


def test_an_agent_that_knows_nothing_of_leases_is_waited_for_as_ever(
    hub: HubProgram, leasing: Leasing
) -> None:
    """It takes items from the same queue itself, and Redis does not know that it has them."""
    register(hub, "old")
    hub.submit("t", image="i", auto_advance=True)
    beat(hub, "old", status="Running", active_containers=1)
    wait_for_looks(leasing)
    assert current(hub) == "t"

    beat(hub, "old", status="Idle", active_containers=0)

    wait_advanced(hub)


@pytest.mark.parametrize("delivery", ["leased", "direct"])
def test_a_producer_keeps_the_task_until_it_leaves(
    hub: HubProgram, leasing: Leasing, delivery: str
) -> None:
    hub.submit("t", image="i", auto_advance=True, delivery=delivery)
    leasing.produce("slow")
    leasing.push("one")
    wait_for_looks(leasing)
    leasing.commit("n", *leasing.take("n"))
    wait_for_looks(leasing)
    assert current(hub) == "t", "more is to come"

    leasing.leave("slow")

    wait_advanced(hub)
    assert leasing.producers() == set()


def test_a_producer_that_falls_silent_is_taken_for_gone(hub: HubProgram, leasing: Leasing) -> None:
    hub.submit("t", image="i", auto_advance=True)
    leasing.produce("killed")
    leasing.produce("well")
    leasing.push("one")
    leasing.commit("n", *leasing.take("n"))
    leasing.spoke_last("killed", before_s=31)
    wait_for_looks(leasing)
    assert current(hub) == "t", "one of them will push more"

    leasing.spoke_last("well", before_s=27)

    wait_advanced(hub)


@pytest.mark.parametrize("how", ["left", "silent"])
def test_a_producer_that_never_pushed_anything_does_not_keep_the_task_for_ever(
    hub: HubProgram, leasing: Leasing, how: str
) -> None:
    """It came and went while another task ran; nobody but it would ever have pushed anything."""
    hub.submit("before", image="i")
    hub.submit("t", image="i", auto_advance=True)
    leasing.produce("p")
    if how == "left":
        leasing.leave("p")
    else:
        leasing.spoke_last("p", before_s=31)
    hub.post("/api/tasks/next")

    wait_advanced(hub)


def test_what_a_producer_of_an_earlier_task_said_does_not_end_this_one(
    hub: HubProgram, leasing: Leasing
) -> None:
    leasing.spoke_last("earlier", before_s=60)
    hub.submit("t", image="i", auto_advance=True)

    wait_for_looks(leasing)
    assert current(hub) == "t", "it never had work"


def test_who_was_silent_for_very_long_is_forgotten_when_another_one_speaks(
    leasing: Leasing,
) -> None:
    leasing.spoke_last("long ago", before_s=4_000)
    leasing.spoke_last("silent", before_s=3_000)
    leasing.produce("one")
    assert leasing.producers() == {"silent", "one"}


def test_a_user_keeps_the_task_open_with_the_lines_of_the_guide(
    hub: HubProgram, leasing: Leasing, redis_server: RedisServer
) -> None:
    require(None if shutil.which("redis-cli") else "no redis-cli on PATH")
    guide = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text("utf-8")
    stay, leave = re.findall(r"^ +(redis-cli Z(?:ADD|REM) .*producers.*)$", guide, re.MULTILINE)

    def run(line: str) -> None:
        line = line.replace("NAME", "t").replace("redis-cli", f"redis-cli -u {redis_server.url}")
        subprocess.run(["/bin/sh", "-c", line], check=True, timeout=20)

    hub.submit("t", image="i", auto_advance=True)
    run(stay)
    leasing.push("one")
    leasing.commit("n", *leasing.take("n"))
    wait_for_looks(leasing)
    assert current(hub) == "t"

    run(leave)

    wait_advanced(hub)
