"""Items that failed too often: seen, exported, given another chance, thrown away."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.support.leasing import Leasing
from tests.support.programs import HubProgram
from tests.support.redis_server import RedisServer

PATH = "/api/tasks/t/dead-letters"


@pytest.fixture
def leasing(hub: HubProgram, redis_server: RedisServer) -> Iterator[Leasing]:
    """Of a task that runs."""
    hub.submit("t", image="i")
    with Leasing(redis_server, "t:input") as leasing:
        yield leasing


def payloads(hub: HubProgram, **page: int) -> list[str]:
    return [letter["payload"] for letter in hub.get(PATH, **page)["dead_letters"]]


def settled(hub: HubProgram, how: str, **choice: Any) -> int:
    return int(hub.post(f"{PATH}/{how}", choice)["count"])


def exported(hub: HubProgram) -> list[dict[str, Any]]:
    return [json.loads(line) for line in hub.http.get(f"{PATH}/export").text.splitlines()]


def test_a_dead_letter_tells_what_happened_to_it(hub: HubProgram, leasing: Leasing) -> None:
    letter_id = leasing.kill(
        "pi-3",
        "numbers: 7",
        reason="exit",
        message="It ended with exit code 3",
        exit_code=3,
        out_of_memory=False,
        log_lines=["Traceback", "ValueError: 7"],
        slot=2,
        task="t",
    )

    listed = hub.get(PATH)

    assert (listed["total"], listed["reasons"]) == (1, {"exit": 1})
    (letter,) = listed["dead_letters"]
    assert letter.pop("at").endswith("Z")
    assert letter == {
        "id": letter_id,
        "reason": "exit",
        "message": "It ended with exit code 3",
        "exit_code": 3,
        "out_of_memory": False,
        "log_lines": ["Traceback", "ValueError: 7"],
        "slot": 2,
        "task": "t",
        "node": "pi-3",
        "attempts": 1,
        "payload_bytes": 10,
        "payload": "numbers: 7",
        "payload_base64": base64.b64encode(b"numbers: 7").decode(),
    }


def test_any_bytes_can_be_a_payload(hub: HubProgram, leasing: Leasing) -> None:
    leasing.kill("n", b"\xff\x00\n\xfe")
    leasing.kill("n", "é" * 50_000)

    text, binary = hub.get(PATH)["dead_letters"]
    whole = exported(hub)

    assert binary["payload"] is None
    assert base64.b64decode(binary["payload_base64"]) == b"\xff\x00\n\xfe"
    assert text["payload"] == "é" * 1_000
    assert (text["payload_bytes"], text["payload_base64"]) == (100_000, None)
    assert [base64.b64decode(letter["payload_base64"]) for letter in whole] == [
        b"\xff\x00\n\xfe",
        ("é" * 50_000).encode(),
    ]


def test_a_report_of_which_half_is_missing_or_strange_is_shown_as_far_as_it_goes(
    hub: HubProgram, leasing: Leasing
) -> None:
    leasing.kill("n", "nothing")
    leasing.kill("n", "strange", reason="exit", exit_code="three", log_lines=["a\ud800b"], new=1)

    strange, nothing = hub.get(PATH)["dead_letters"]

    assert (nothing["reason"], nothing["message"], nothing["log_lines"]) == (None, "", [])
    assert (strange["reason"], strange["exit_code"]) == ("exit", None)
    assert strange["log_lines"] == ["a?b"]
    assert hub.get(PATH)["reasons"] == {"exit": 1, "unknown": 1}


def test_the_list_is_paged_from_the_newest_on(hub: HubProgram, leasing: Leasing) -> None:
    for number in range(30):
        leasing.kill("n", str(number), reason="exit" if number % 2 else "out_of_memory")

    assert payloads(hub) == [str(number) for number in reversed(range(30))]
    assert payloads(hub, offset=5, limit=20) == [str(number) for number in range(24, 4, -1)]
    assert payloads(hub, offset=30) == []
    page = hub.get(PATH, limit=3)
    assert (page["total"], page["reasons"]) == (30, {"exit": 2, "out_of_memory": 1})
    assert hub.http.get(PATH, params={"limit": 0}).status_code == 422


def test_all_are_exported_the_oldest_first(hub: HubProgram, leasing: Leasing) -> None:
    assert exported(hub) == []
    for number in range(120):
        leasing.kill("n", str(number), reason="exit")

    response = hub.http.get(f"{PATH}/export")

    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["payload"] for line in response.text.splitlines()] == [
        str(number) for number in range(120)
    ]


def test_those_that_are_meant_become_items_again_and_the_order_of_the_others_stays(
    hub: HubProgram, leasing: Leasing
) -> None:
    ids = [
        leasing.kill("n", str(number), reason="exit" if number % 3 else "out_of_memory")
        for number in range(60)
    ]

    assert settled(hub, "retry", ids=[ids[1], ids[58], "no such id"]) == 2
    assert settled(hub, "retry", reason="out_of_memory") == 20
    assert settled(hub, "retry", reason="no such reason") == 0

    left = [number for number in range(60) if number % 3 and number not in (1, 58)]
    assert payloads(hub) == [str(number) for number in reversed(left)]
    assert hub.task("t")["queues"]["retrying"] == 22
    again = leasing.take("n", 100)
    assert {lease.attempts for lease in again} == {0}
    assert {lease.payload for lease in again} == {
        *(b"%d" % number for number in range(60) if not number % 3),
        b"1",
        b"58",
    }
    assert settled(hub, "retry", all=True) == 38
    assert hub.get(PATH)["total"] == 0
    hub.wait_logged("INFO    computehub dead_letters_retried task=t count=38")


def test_those_that_are_discarded_are_gone(hub: HubProgram, leasing: Leasing) -> None:
    ids = [leasing.kill("n", str(number), reason="exit") for number in range(3)]

    assert settled(hub, "discard", ids=["no such id"]) == 0
    assert settled(hub, "discard", ids=[ids[1]]) == 1
    assert payloads(hub) == ["2", "0"]
    assert settled(hub, "discard", all=True) == 2

    assert hub.get(PATH) == {"total": 0, "reasons": {}, "dead_letters": []}
    assert hub.task("t")["queues"] == {
        "input": 0,
        "output": 0,
        "retrying": 0,
        "leased": 0,
        "dead": 0,
        "error": None,
    }
    hub.wait_logged("INFO    computehub dead_letters_discarded task=t count=2")


def test_very_many_are_walked_through(hub: HubProgram, leasing: Leasing) -> None:
    letters = [
        b'{"id":"%d","attempts":1,"at_ms":1,"node":"n","report":{"reason":"exit"}}\n%d' % (n, n)
        for n in range(20_000)
    ]
    leasing.call(leasing.redis.lpush(leasing.leases.keys.dead, *letters))

    assert settled(hub, "retry", ids=["19999", "0"]) == 2
    assert [letter["id"] for letter in exported(hub)] == [str(n) for n in range(1, 19_999)]
    assert settled(hub, "discard", reason="exit") == 19_998


@pytest.mark.parametrize(
    "choice", [{}, {"all": False}, {"ids": ["a"], "all": True}, {"ids": ["a"], "reason": "exit"}]
)
@pytest.mark.parametrize("how", ["retry", "discard"])
def test_a_choice_that_is_not_one_is_refused(
    hub: HubProgram, leasing: Leasing, how: str, choice: dict[str, Any]
) -> None:
    leasing.kill("n", "x")

    refusal = hub.http.post(f"{PATH}/{how}", json=choice)

    assert refusal.status_code == 422
    assert refusal.json()["detail"] == (
        'say which dead letters are meant, in one way: {"ids": ["..."]}, {"reason": "..."}'
        ' or {"all": true}'
    )
    assert payloads(hub) == ["x"]


def test_while_one_call_walks_through_them_another_is_refused(
    hub: HubProgram, leasing: Leasing
) -> None:
    """Both turn the list round: each would miss those that the other has just put back."""
    leasing.kill("n", "x")
    leasing.call(leasing.redis.set("gc:{hub}:settling:t:input", "another hub", px=60_000))

    refusal = hub.http.post(f"{PATH}/retry", json={"all": True})

    assert refusal.status_code == 409
    assert "another call is walking through them" in refusal.json()["detail"]
    leasing.call(leasing.redis.delete("gc:{hub}:settling:t:input"))
    assert settled(hub, "retry", all=True) == 1


def test_an_unknown_task_has_none(hub: HubProgram) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/export"),
        ("POST", "/retry"),
        ("POST", "/discard"),
    ):
        response = hub.http.request(
            method, f"{PATH}{path}", json={"all": True} if method == "POST" else None
        )
        assert (response.status_code, response.json()["code"]) == (404, "unknown_task")


def test_a_redis_that_is_away_is_named_soon_without_its_password(hub: HubProgram) -> None:
    with RedisServer(password="s3cret") as elsewhere:
        hub.submit("t", image="i", input_redis=elsewhere.url)
        assert hub.get(PATH)["total"] == 0
        elsewhere.freeze()
        stuck = _refusals(hub)
        elsewhere.thaw()
        elsewhere.kill()
        gone = _refusals(hub)

    where = f"dead letters of 't' in the task's Redis at redis://:***@127.0.0.1:{elsewhere.port}/0"
    for said in stuck:
        assert f"{where}: it does not answer (nothing for 4 s). Nothing is lost" in said
    for said in gone:
        assert f"{where}: it does not answer (Error 111 connecting to 127.0.0.1" in said
    assert not [said for said in (*stuck, *gone, hub.log) if "s3cret" in said]


def _refusals(hub: HubProgram) -> list[str]:
    said = []
    for method, path in (("GET", ""), ("GET", "/export"), ("POST", "/retry")):
        began_s = time.monotonic()
        response = hub.http.request(
            method, f"{PATH}{path}", json={"all": True} if method == "POST" else None
        )
        assert time.monotonic() - began_s < 5
        assert (response.status_code, response.json()["code"]) == (503, "task_redis_unavailable")
        said.append(response.json()["detail"])
    return said


def test_an_export_needs_little_memory(hub: HubProgram, leasing: Leasing) -> None:
    """300 MB of letters, and a reader that takes its time."""
    megabyte = b"x" * 1_000_000
    header = b'{"id":"a","attempts":1,"at_ms":1,"node":"n","report":{}}\n'
    for _ in range(300):
        leasing.call(leasing.redis.lpush(leasing.leases.keys.dead, header + megabyte))
    process = psutil.Process(hub.process.pid)
    before = process.memory_info().rss
    most = lines = 0
    with hub.http.stream("GET", f"{PATH}/export") as response:
        for line in response.iter_lines():
            lines += 1
            assert base64.b64decode(json.loads(line)["payload_base64"]) == megabyte
            most = max(most, process.memory_info().rss - before)

    assert lines == 300
    assert most < 150_000_000


def test_an_export_that_breaks_off_does_not_look_complete(
    hub: HubProgram, leasing: Leasing, redis_server: RedisServer
) -> None:
    letter = b'{"id":"a","attempts":1,"at_ms":1,"node":"n","report":{}}\n' + b"x" * 100_000
    leasing.call(leasing.redis.lpush(leasing.leases.keys.dead, *[letter] * 500))
    with hub.http.stream("GET", f"{PATH}/export") as response:
        lines = response.iter_lines()
        next(lines)
        redis_server.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    hub.wait_logged("WARNING computehub export_broken")
    assert "Traceback" not in hub.log
