"""What each client library sends when it connects, and what it is answered; no sockets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import hiredis
import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ResponseError

from gridnode.gateway import conversation as conversations
from gridnode.gateway.arguments import with_code
from gridnode.gateway.desk import Desk
from gridnode.gateway.resp import MAX_INLINE_BYTES
from tests.support.desks import (
    OUTPUT,
    QUEUE,
    SECRET,
    FakeOutside,
    Peer,
    leases,
    make_desk,
    pack,
)

OK = b"OK"
HELLO = "HELLO ..."
"""Stands for the reply to HELLO in the protocol that was asked for."""
NO_SUCH = "ERR unknown subcommand"

LOGIN = f"AUTH default {SECRET}"
HELLO_3 = f"HELLO 3 AUTH default {SECRET}"

# What was seen on the wire, piece by piece: a client waits for all replies to one piece before it
# sends the next. Recorded between real clients and a gateway; those marked * are from the sources
# of the libraries.
HANDSHAKES: dict[str, list[dict[str, Any]]] = {
    "redis-py 4.6": [{LOGIN: OK}],
    "redis-py 5.0": [
        {LOGIN: OK},
        {"CLIENT SETINFO LIB-NAME redis-py": OK},
        {"CLIENT SETINFO LIB-VER 5.0.8": OK},
    ],
    "redis-py 7.4": [
        {LOGIN: OK},
        {"CLIENT SETINFO LIB-NAME redis-py": OK},
        {"CLIENT SETINFO LIB-VER 7.4.1": OK},
    ],
    "redis-py 7.4 in RESP3, with a name": [
        {HELLO_3: HELLO},
        {"CLIENT SETNAME worker": OK},
        {"CLIENT SETINFO LIB-NAME redis-py": OK},
        {"CLIENT SETINFO LIB-VER 7.4.1": OK},
    ],
    "redis-py 8.1": [
        {HELLO_3: HELLO},
        {"CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-ip": NO_SUCH},
        {"CLIENT SETINFO LIB-NAME redis-py": OK},
        {"CLIENT SETINFO LIB-VER 8.1.0": OK},
    ],
    "ioredis 5.9": [
        {f"auth default {SECRET}": OK},
        {"client SETINFO LIB-NAME ioredis": OK},
        {"client SETINFO LIB-VER 5.9.3": OK},
        {"info": "redis_version"},
    ],
    "ioredis 6.0": [
        {f"hello 3 AUTH default {SECRET}": HELLO},
        {"client SETINFO LIB-VER 6.0.0": OK},
        {"client SETINFO LIB-NAME ioredis": OK},
        {"info": "redis_version"},
    ],
    "node-redis 5.12": [
        {
            LOGIN: OK,
            "CLIENT SETINFO LIB-VER 5.12.1": OK,
            "CLIENT SETINFO LIB-NAME node-redis": OK,
        }
    ],
    "node-redis 6.3": [
        {
            HELLO_3: HELLO,
            "CLIENT SETINFO LIB-VER 6.3.1": OK,
            "CLIENT SETINFO LIB-NAME node-redis": OK,
            "CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type external-ip": NO_SUCH,
        }
    ],
    "go-redis 9.22": [
        {f"hello 3 auth default {SECRET}": HELLO},
        {"client maint_notifications on moving-endpoint-type internal-ip": NO_SUCH},
        {
            "client setinfo LIB-NAME go-redis(,go1.26.8)": OK,
            "client setinfo LIB-VER 9.22.0": OK,
        },
    ],
    "go-redis 9.22 in RESP2": [
        {f"hello 2 auth default {SECRET}": HELLO},
        {
            "client setinfo LIB-NAME go-redis(,go1.26.8)": OK,
            "client setinfo LIB-VER 9.22.0": OK,
        },
    ],
    "jedis 7.0": [
        {LOGIN: OK},
        {"CLIENT SETINFO LIB-NAME jedis": OK, "CLIENT SETINFO LIB-VER 7.0.0": OK},
    ],
    "jedis 8.0": [
        {HELLO_3: HELLO},
        {"CLIENT SETINFO LIB-NAME jedis": OK, "CLIENT SETINFO LIB-VER 8.0.0": OK},
    ],
    "lettuce 7.0": [
        {HELLO_3: HELLO},
        {
            "CLIENT SETINFO lib-name Lettuce": OK,
            "CLIENT SETINFO lib-ver 7.0.0.RELEASE/ad591d5": OK,
        },
        {"CLIENT MAINT_NOTIFICATIONS on moving-endpoint-type internal-ip": NO_SUCH},
    ],
    "redis-rs 1.8": [
        {
            LOGIN: OK,
            "CLIENT SETINFO LIB-NAME redis-rs": OK,
            "CLIENT SETINFO LIB-VER 1.8.1": OK,
        }
    ],
    "redis-rs 1.8 in RESP3": [
        {
            HELLO_3: HELLO,
            "CLIENT SETINFO LIB-NAME redis-rs": OK,
            "CLIENT SETINFO LIB-VER 1.8.1": OK,
        }
    ],
    "redis-client for Ruby *": [{HELLO_3: HELLO}],
    "predis *": [
        {LOGIN: OK},
        {"SELECT 0": OK},
        {"CLIENT SETINFO LIB-NAME predis": OK},
        {"CLIENT SETINFO LIB-VER 3.0.0": OK},
    ],
    "StackExchange.Redis *": [
        {
            LOGIN: OK,
            "CLIENT SETNAME worker": OK,
            "CLIENT SETINFO lib-name SE.Redis": OK,
            "CLIENT ID": "id",
            "CONFIG GET timeout": [],
            "SENTINEL MASTERS": "NOPERM",
            "INFO replication": "redis_version",
            "CLUSTER NODES": "NOPERM",
            "ECHO hi": b"hi",
        }
    ],
    "redis-cli 7.0, one command": [{LOGIN: OK}],
    "redis-cli 7.0, commands from a pipe": [{LOGIN: OK}, {"COMMAND DOCS": []}],
    "redis-cli 7.0 in RESP3": [{LOGIN: OK}, {"HELLO 3": HELLO}],
    "redis-cli 6.2, commands from a pipe *": [{f"AUTH {SECRET}": OK}, {"COMMAND": []}],
    "hiredis and phpredis, with what their programs send *": [{f"AUTH {SECRET}": OK}],
}


def assert_is(reply: Any, expected: Any, protocol: int) -> None:
    if expected is HELLO:
        assert_is_hello(reply, protocol=protocol)
    elif expected == "id":
        assert isinstance(reply, int)
    elif isinstance(expected, str) and isinstance(reply, hiredis.ReplyError):
        assert str(reply).startswith(expected)
    elif isinstance(expected, str):
        assert expected.encode() in reply
    else:
        assert reply == expected


def assert_is_hello(reply: Any, *, protocol: int) -> None:
    if protocol == 2:
        assert isinstance(reply, list)
        reply = dict(zip(reply[::2], reply[1::2], strict=True))
    assert isinstance(reply, dict), "a map in RESP3: redis-py 8 and others insist"
    assert isinstance(reply.pop(b"id"), int)
    assert reply == {
        b"server": b"redis",
        b"version": b"7.0.15",
        b"proto": protocol,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


@pytest.mark.parametrize("name", HANDSHAKES)
def test_each_client_library_connects_and_works(name: str) -> None:
    outside = FakeOutside()
    desk = make_desk([b"a"], outside=outside)
    peer = Peer(desk)
    for piece in HANDSHAKES[name]:
        replies = peer.ask(*piece)
        assert len(replies) == len(piece)
        for reply, expected in zip(replies, piece.values(), strict=True):
            assert_is(reply, expected, peer.conversation.protocol)
    assert peer.conversation.is_authenticated
    assert peer.conversation.protocol == (3 if "hello 3" in str(HANDSHAKES[name]).lower() else 2)

    word = str.lower if name.startswith(("ioredis", "go-redis")) else str.upper
    assert peer.ask(f"{word('BRPOP')} {QUEUE} 1") == [[QUEUE.encode(), b"a"]]
    pipeline = [word("MULTI"), f"{word('LPUSH')} {OUTPUT} 1", word("EXEC")]
    assert peer.ask(*pipeline) == [OK, b"QUEUED", [1]]
    assert peer.ask(f"{word('BRPOP')} {QUEUE} 1") == []
    assert outside.results == [b"1"]


@pytest.fixture
def outside() -> FakeOutside:
    return FakeOutside()


@pytest.fixture
def desk(outside: FakeOutside) -> Desk:
    return make_desk(outside=outside)


@pytest.fixture
def stranger(desk: Desk) -> Peer:
    return Peer(desk)


@pytest.fixture
def peer(desk: Desk) -> Peer:
    return Peer(desk, logged_in=True)


def the_error(replies: list[Any]) -> str:
    (reply,) = replies
    assert isinstance(reply, hiredis.ReplyError), reply
    return str(reply)


# --- logging in


@pytest.mark.parametrize(
    "command",
    [f"AUTH {SECRET}", f"AUTH default {SECRET}", f"AUTH anybody {SECRET}", f"auth {SECRET}"],
)
def test_a_user_name_is_as_good_as_none(stranger: Peer, command: str) -> None:
    assert stranger.ask(command, "PING") == [OK, b"PONG"]


@pytest.mark.parametrize(
    "command",
    ["PING", "INFO", "CLIENT ID", "SELECT 0", "COMMAND DOCS", "MULTI", "EXEC", f"BRPOP {QUEUE} 0",
     f"brpop {QUEUE} 0", f"LPUSH {OUTPUT} x", "KEYS *"],
)  # fmt: skip
def test_who_has_not_logged_in_is_told_so(stranger: Peer, command: str) -> None:
    assert the_error(stranger.ask(command)).startswith(
        "NOAUTH Authentication required. gridcore: connect with the whole of INPUT_REDIS_URL"
    )


@pytest.mark.parametrize(
    "command",
    ["AUTH wrong", "AUTH default wrong", f"AUTH {SECRET} wrong", "HELLO 3 AUTH default wrong",
     f"AUTH {SECRET}x", f"AUTH {SECRET[:-1]}", "AUTH "],
)  # fmt: skip
def test_a_wrong_password_is_refused_and_noted(stranger: Peer, desk: Desk, command: str) -> None:
    assert the_error(stranger.ask(command)).startswith("WRONGPASS invalid username-password pair")
    assert desk.wrong_passwords == 1
    assert the_error(stranger.ask("PING")).startswith("NOAUTH")
    assert stranger.conversation.protocol == 2


def test_a_wrong_password_takes_nothing_away_from_who_has_logged_in(peer: Peer) -> None:
    assert the_error(peer.ask("AUTH wrong")).startswith("WRONGPASS")
    assert peer.ask("PING") == [b"PONG"]


def test_who_sends_wrong_passwords_without_end_is_hung_up_on(stranger: Peer) -> None:
    replies = stranger.ask(*["AUTH wrong"] * 100)
    assert len(replies) == conversations.MAX_WRONG_PASSWORDS
    assert stranger.hung_up_for == "it kept on sending wrong passwords"


def test_reset_is_to_begin_anew(peer: Peer) -> None:
    peer.ask("HELLO 3", "CLIENT SETNAME me", "MULTI")
    assert peer.ask("RESET") == [b"RESET"]
    assert peer.conversation.protocol == 2
    assert the_error(peer.ask("PING")).startswith("NOAUTH")
    assert peer.ask(f"AUTH {SECRET}", "CLIENT GETNAME", "PING") == [OK, None, b"PONG"]


def test_quit_is_answered_and_what_follows_it_is_not(peer: Peer) -> None:
    assert peer.ask("PING", "QUIT", "PING") == [b"PONG", OK]
    assert peer.hung_up_for == ""


def test_quit_needs_no_password(stranger: Peer) -> None:
    assert stranger.ask("QUIT") == [OK]
    assert stranger.hung_up_for == ""


# --- HELLO


def test_hello_changes_the_protocol_back_and_forth(peer: Peer) -> None:
    for hello, protocol in (("HELLO", 2), ("HELLO 3", 3), ("HELLO", 3), ("HELLO 2", 2)):
        (reply,) = peer.ask(hello)
        assert_is_hello(reply, protocol=protocol)


@pytest.mark.parametrize("version", ["1", "4", "33", "-3", "three"])
def test_another_protocol_is_refused_in_the_words_that_clients_know(
    stranger: Peer, version: str
) -> None:
    """ioredis and go-redis then go on with RESP2."""
    error = the_error(stranger.ask(f"HELLO {version} AUTH default {SECRET}"))
    assert error == "NOPROTO unsupported protocol version"
    assert the_error(stranger.ask("PING")).startswith("NOAUTH")


def test_hello_without_a_password_says_how_to_give_one(stranger: Peer) -> None:
    error = the_error(stranger.ask("HELLO 3"))
    assert error.startswith("NOAUTH HELLO must be called with the client already authenticated")
    assert stranger.conversation.protocol == 2


def test_hello_can_name_the_connection(stranger: Peer) -> None:
    stranger.ask(f"HELLO 3 AUTH default {SECRET} SETNAME me")
    assert stranger.ask("CLIENT GETNAME") == [b"me"]


@pytest.mark.parametrize("rest", ["AUTH default", "AUTH", "SETNAME", "NOW 1"])
def test_what_hello_does_not_know_is_a_syntax_error(peer: Peer, rest: str) -> None:
    assert the_error(peer.ask(f"HELLO 3 {rest}")).startswith("ERR Syntax error in HELLO option")
    assert peer.conversation.protocol == 2


def test_nothing_is_nothing_in_each_protocols_own_way(outside: FakeOutside, desk: Desk) -> None:
    for protocol, nil, no_items in ((2, b"$-1\r\n", b"*-1\r\n"), (3, b"_\r\n", b"_\r\n")):
        peer = Peer(desk, logged_in=True)
        peer.ask(f"HELLO {protocol}")
        for command, expected in (
            (f"LPOP {QUEUE}", nil),
            (f"LPOP {QUEUE} 2", no_items),
            (f"LMPOP 1 {QUEUE} LEFT", no_items),
            (f"LMOVE {QUEUE} own LEFT LEFT", nil),
            (f"BLPOP {QUEUE} 1", no_items),
            (f"BLMOVE {QUEUE} own LEFT LEFT 1", no_items),
            ("CLIENT GETNAME", nil),
        ):
            peer.sent_back.clear()
            peer.ask(command)
            desk.stock.takes_begun += 1
            for side in ("L", "R"):
                desk.stock.taken(side, [], take=desk.stock.takes_begun, is_exhausted=True)
            outside.pass_time(2)
            assert bytes(peer.sent_back) == expected, command
        peer.vanish(was_read=True)


def test_maps_are_maps_in_resp3_only(peer: Peer) -> None:
    assert peer.ask("CONFIG GET *", "COMMAND DOCS") == [[], []]
    peer.ask("HELLO 3")
    assert peer.ask("CONFIG GET *", "COMMAND DOCS") == [{}, {}]


# --- what every client asks


def test_the_small_talk_of_clients(peer: Peer) -> None:
    small_talk = {
        "PING": b"PONG",
        "PING hi": b"hi",
        "ECHO hi": b"hi",
        "SELECT 0": OK,
        "READONLY": OK,
        "READWRITE": OK,
        "UNWATCH": OK,
        f"WATCH {QUEUE}": OK,
        "COMMAND": [],
        "COMMAND COUNT": 0,
        "COMMAND LIST": [],
        "COMMAND INFO get set": [None, None],
        "CLIENT SETINFO LIB-NAME x": OK,
        "CLIENT NO-EVICT ON": OK,
        "CLIENT NO-TOUCH ON": OK,
        "CLIENT TRACKING OFF": OK,
        "CLIENT REPLY ON": OK,
        "CLIENT GETNAME": None,
        "client setname me": OK,
        "Client GetName": b"me",
    }
    assert peer.ask(*small_talk) == list(small_talk.values())


def test_connections_have_different_ids(desk: Desk) -> None:
    ids = [Peer(desk, logged_in=True).ask("CLIENT ID")[0] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(isinstance(one, int) for one in ids)


@pytest.mark.parametrize("what", ["INFO", "LIST"])
def test_a_client_that_looks_at_clients_sees_itself(peer: Peer, what: str) -> None:
    peer.ask("CLIENT SETNAME me")
    (line,) = peer.ask(f"CLIENT {what}")
    assert re.fullmatch(rb"id=\d+ name=me db=0 resp=2 cmd=client\|\w+\n", line)


def test_info_has_the_fields_that_clients_look_for(peer: Peer) -> None:
    (info,) = peer.ask("INFO")
    fields = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
    assert fields[b"redis_version"] == b"7.0.15"
    assert fields[b"loading"] == b"0", "ioredis waits until it is"
    assert fields[b"role"] == b"master"
    assert fields[b"redis_mode"] == b"standalone"
    assert fields[b"cluster_enabled"] == b"0"


@pytest.mark.parametrize(
    "command",
    ["CLIENT", "CLIENT KILL 127.0.0.1:1", "CLIENT PAUSE 1000", "CLIENT UNBLOCK 1", "CLIENT SETNAME",
     "CLIENT TRACKING ON", "CLIENT REPLY OFF", "CLIENT REPLY SKIP", "CLIENT NONSENSE",
     "CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type none", "CLIENT TRACKING"],
)  # fmt: skip
def test_what_client_does_not_know_is_a_plain_error(peer: Peer, command: str) -> None:
    assert the_error(peer.ask(command)).startswith("ERR unknown subcommand or wrong number of")
    assert peer.ask("PING") == [b"PONG"]


@pytest.mark.parametrize("name", ["two words", "line\nbreak", "ünï", "x" * 10_000])
def test_a_name_of_a_connection_is_one_short_word(peer: Peer, name: str) -> None:
    """It is repeated in replies: one of megabytes, asked for a thousand times, would be a bomb."""
    for command in (("CLIENT", "SETNAME", name), ("HELLO", "3", "SETNAME", name)):
        error = the_error(peer.ask_in_bytes(pack(*command)))
        assert error.startswith("ERR Client names")
    assert peer.ask("CLIENT GETNAME") == [None]


def test_only_database_0_is_there(peer: Peer) -> None:
    assert the_error(peer.ask("SELECT 1")).startswith("ERR DB index is out of range")
    assert the_error(peer.ask("SELECT x")).startswith("ERR DB index is out of range")


@pytest.mark.parametrize(
    "command",
    ["AUTH", "AUTH a b c", "SELECT", "SELECT 0 0", "PING a b", "ECHO", "ECHO a b", "MULTI now",
     "EXEC now", f"BRPOP {QUEUE}", "BRPOP", "RPOP", f"RPOP {QUEUE} 1 1", f"LPUSH {OUTPUT}", "LPUSH",
     f"LMOVE {QUEUE} own LEFT", f"BLMOVE {QUEUE} own LEFT LEFT", f"RPOPLPUSH {QUEUE}", "LLEN",
     f"BRPOPLPUSH {QUEUE} own", f"LMPOP 1 {QUEUE}", "BLMPOP 0 1", "BLMPOP", f"LRANGE {QUEUE} 0",
     f"LINDEX {QUEUE}", f"LREM {QUEUE} 1", "EXISTS", "TYPE"],
)  # fmt: skip
def test_too_few_or_too_many_words_are_answered_as_by_redis(peer: Peer, command: str) -> None:
    if command == "EXEC now":
        peer.ask("MULTI")
    name = command.split(" ")[0].lower()
    expected = f"ERR wrong number of arguments for '{name}' command"
    assert the_error(peer.ask(command)) == expected


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (f"BRPOP {QUEUE} soon", "ERR timeout is not a float or out of range"),
        (f"BRPOP {QUEUE} nan", "ERR timeout is not a float or out of range"),
        (f"BRPOP {QUEUE} inf", "ERR timeout is not a float or out of range"),
        (f"BRPOP {QUEUE} 1e300", "ERR timeout is not a float or out of range"),
        (f"BRPOP {QUEUE} -1", "ERR timeout is negative"),
        (f"RPOP {QUEUE} many", "ERR value is not an integer or out of range"),
        (f"RPOP {QUEUE} -1", "ERR value is out of range, must be positive"),
        (f"LMPOP 0 {QUEUE} LEFT", "ERR value is out of range, must be greater than 0"),
        (f"LMPOP 1 {QUEUE} LEFT COUNT 0", "ERR value is out of range, must be greater than 0"),
        (f"LMPOP 1 {QUEUE} MIDDLE", "ERR syntax error"),
        (f"LMPOP 1 {QUEUE} LEFT NUMBER 1", "ERR syntax error"),
        (f"LMPOP 5 {QUEUE} LEFT", "ERR syntax error"),
        (f"LMOVE {QUEUE} own UP DOWN", "ERR syntax error"),
        (f"LRANGE {QUEUE} a b", "ERR value is not an integer or out of range"),
    ],
)
def test_arguments_that_make_no_sense_are_answered_as_by_redis(
    peer: Peer, command: str, error: str
) -> None:
    assert the_error(peer.ask(command)) == error


@pytest.mark.parametrize(
    "command",
    ["GET x", "SUBSCRIBE x", "PSUBSCRIBE *", "SSUBSCRIBE x", "MONITOR", "SYNC", "PSYNC ? -1",
     "EVAL x 0", "SHUTDOWN", "DEBUG SLEEP 1", "CLUSTER NODES", "SCRIPT LOAD x", "CONFIG SET a b",
     "nonsense", "", "BRPOP other 0", "LPUSH other 1", f"FLUSHALL {QUEUE}"],
)  # fmt: skip
def test_what_is_not_a_containers_business_is_refused_with_what_to_do(
    peer: Peer, command: str
) -> None:
    assert the_error(peer.ask(command)).startswith("NOPERM gridcore")
    assert peer.ask("PING") == [b"PONG"]


def test_a_command_of_any_bytes_is_refused_in_one_line(peer: Peer) -> None:
    error = the_error(peer.ask_in_bytes(pack(b"\x00\xff\r\n" * 100, b"\r\n-ERR")))
    assert error.startswith("NOPERM gridcore")
    assert peer.ask("PING") == [b"PONG"]


# --- typed by hand


def test_lines_typed_into_nc_are_commands(peer: Peer, desk: Desk, outside: FakeOutside) -> None:
    desk.stock.taken("R", leases(b"a", b"b"), take=0, is_exhausted=False)
    typed = f'PING\r\n\r\nrpop {QUEUE}\nLPUSH {OUTPUT} "the result"\r\n'.encode()
    assert peer.ask_in_bytes(typed) == [b"PONG", b"a", 1]
    assert peer.ask_in_bytes(f"RPOP {QUEUE}\r\n".encode()) == [b"b"]
    assert outside.results == [b"the result"]


def test_lines_and_arrays_may_take_turns(stranger: Peer) -> None:
    sent = f"AUTH {SECRET}\r\n".encode() + pack("PING") + b"PING\r\n" + pack("ECHO", "hi")
    assert stranger.ask_in_bytes(sent) == [OK, b"PONG", b"PONG", b"hi"]


# --- MULTI


def test_a_multi_is_carried_out_at_its_exec(peer: Peer, outside: FakeOutside) -> None:
    assert peer.ask("MULTI", "PING", f"LPUSH {OUTPUT} 1 2", "ECHO hi") == [OK, *[b"QUEUED"] * 3]
    assert outside.through == []
    assert peer.ask("EXEC") == []
    outside.through[0][1](None)
    assert peer.replies() == [[b"PONG", 2, b"hi"]]
    assert outside.results == [b"1", b"2"]


def test_an_empty_multi_is_an_empty_array(peer: Peer) -> None:
    assert peer.ask("MULTI", "EXEC") == [OK, []]


def test_a_multi_can_be_discarded(peer: Peer, outside: FakeOutside) -> None:
    assert peer.ask("MULTI", f"LPUSH {OUTPUT} 1", "DISCARD") == [OK, b"QUEUED", OK]
    assert the_error(peer.ask("EXEC")) == "ERR EXEC without MULTI"
    assert the_error(peer.ask("DISCARD")) == "ERR DISCARD without MULTI"
    assert outside.through == []


def test_a_multi_within_a_multi_is_an_error_and_no_more(peer: Peer) -> None:
    replies = peer.ask("MULTI", "MULTI", "PING", "EXEC")
    assert str(replies[1]) == "ERR MULTI calls can not be nested"
    assert replies[2:] == [b"QUEUED", [b"PONG"]]


def test_a_watch_within_a_multi_is_an_error_and_no_more(peer: Peer) -> None:
    replies = peer.ask(f"WATCH {QUEUE}", "MULTI", f"WATCH {QUEUE}", "PING", "EXEC")
    assert str(replies[2]) == "ERR WATCH inside MULTI is not allowed"
    assert replies[3:] == [b"QUEUED", [b"PONG"]]


def test_a_multi_with_a_command_that_is_refused_is_given_up(
    peer: Peer, outside: FakeOutside
) -> None:
    replies = peer.ask("MULTI", f"LPUSH {OUTPUT} 1", "GET x", "EXEC", "PING")
    assert str(replies[2]).startswith("NOPERM gridcore")
    assert str(replies[3]).startswith("EXECABORT Transaction discarded because of")
    assert replies[4] == b"PONG"
    assert outside.through == []
    assert peer.ask("MULTI", "PING", "EXEC")[-1] == [b"PONG"], "the next one is a new one"


@pytest.mark.parametrize(
    "wrong", [f"LPUSH {OUTPUT}", "RPOP", "BRPOP work", "LREM own 1", "EXISTS", "PING", "select"]
)
def test_a_multi_with_too_few_words_in_it_is_given_up(
    peer: Peer, outside: FakeOutside, wrong: str
) -> None:
    right = wrong == "PING"
    replies = peer.ask("MULTI", f"LPUSH {OUTPUT} 1", wrong, f"LPUSH {OUTPUT} 2", "EXEC")
    if right:
        assert len(outside.through) == 1
        return
    assert str(replies[2]).startswith("ERR wrong number of arguments for")
    assert str(replies[4]).startswith("EXECABORT")
    assert outside.through == []


@pytest.mark.parametrize(
    ("command", "nothing"),
    [
        (f"BLMOVE {QUEUE} own RIGHT LEFT 0", b"$-1"),
        (f"BRPOPLPUSH {QUEUE} own 0", b"$-1"),
        (f"BRPOP {QUEUE} 0", b"*-1"),
        (f"BLMPOP 0 1 {QUEUE} LEFT", b"*-1"),
        (f"LMPOP 1 {QUEUE} LEFT", b"*-1"),
        (f"RPOP {QUEUE}", b"$-1"),
        (f"RPOP {QUEUE} 3", b"*-1"),
    ],
)
def test_nothing_within_an_exec_is_what_redis_says(
    peer: Peer, desk: Desk, command: str, nothing: bytes
) -> None:
    """Recorded from Redis 7."""
    peer.ask("MULTI", command, "EXEC")
    desk.stock.taken("R", [], take=1, is_exhausted=True)
    assert peer.sent_back.endswith(b"*1\r\n%b\r\n" % nothing)


@pytest.mark.parametrize(
    "sent",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "NOSCRIPT No matching script.",
        "NOPERM this user has no permissions",
        "MISCONF Redis is configured to save RDB snapshots",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "EXECABORT Transaction discarded",
        "MOVED 3999 127.0.0.1:6381",
        "ERR DB index is out of range",
        "ERR value is not an integer or out of range",
    ],
)
def test_an_error_of_redis_is_told_as_redis_has_said_it(sent: str) -> None:
    error = BaseParser.parse_error(sent)  # type: ignore[no-untyped-call]
    assert with_code(error) == sent


def test_an_error_of_our_own_has_a_code_as_well() -> None:
    assert with_code(ResponseError("ERR gridcore: away")) == "ERR gridcore: away"
    assert with_code("something else") == "ERR something else"


def test_an_error_within_an_exec_is_one_of_its_replies(peer: Peer) -> None:
    replies = peer.ask("MULTI", "PING", f"BRPOP {QUEUE} soon", "PING", "EXEC")
    (first, error, last) = replies[-1]
    assert (first, last) == (b"PONG", b"PONG")
    assert isinstance(error, hiredis.ReplyError)


def test_quit_and_reset_end_a_multi(desk: Desk, outside: FakeOutside) -> None:
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask("MULTI", f"LPUSH {OUTPUT} 1", "QUIT") == [OK, b"QUEUED", OK]
    assert two.ask("MULTI", f"LPUSH {OUTPUT} 1", "RESET") == [OK, b"QUEUED", b"RESET"]
    assert two.ask(f"AUTH {SECRET}", "PING") == [OK, b"PONG"]
    assert outside.through == []


def test_a_pop_within_an_exec_does_not_wait(peer: Peer, desk: Desk) -> None:
    assert peer.ask("MULTI", f"BRPOP {QUEUE} 0", "EXEC") == [OK, b"QUEUED"]
    desk.stock.taken("R", [], take=1, is_exhausted=True)
    assert peer.replies() == [[None]]


def test_results_and_acks_of_one_exec_are_one_transaction(outside: FakeOutside) -> None:
    desk = make_desk([b"a", b"b"], outside=outside, ack="explicit")
    peer = Peer(desk, logged_in=True)
    assert peer.ask(f"RPOPLPUSH {QUEUE} own", f"RPOPLPUSH {QUEUE} own") == [b"a", b"b"]
    assert peer.ask("MULTI", f"LPUSH {OUTPUT} 1", "LREM own 1 a", "EXEC")[-1] == [1, 1]
    (transaction,) = outside.committed
    assert len(transaction.tokens) == 1
    assert [push.values for push in transaction.results] == [[b"1"]]


def test_two_execs_that_wait_at_the_same_time_are_two_transactions(outside: FakeOutside) -> None:
    desk = make_desk([b"a", b"b"], outside=outside, ack="explicit")
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask(f"RPOPLPUSH {QUEUE} own-1") == [b"a"]
    assert two.ask(f"RPOPLPUSH {QUEUE} own-2") == [b"b"]
    one.ask("MULTI", f"LPUSH {OUTPUT} of-a", f"LLEN {OUTPUT}", "LREM own-1 1 a", "EXEC")
    two.ask("MULTI", f"LPUSH {OUTPUT} of-b", "LREM own-2 1 b", "EXEC")
    assert outside.results == [b"of-b"]
    outside.answer(0)
    assert outside.results == [b"of-b", b"of-a"]
    assert [len(transaction.tokens) for transaction in outside.committed] == [1, 1]


def test_an_exec_is_carried_out_even_if_its_connection_is_gone_meanwhile(
    outside: FakeOutside,
) -> None:
    """As by Redis, which carries out the whole at once."""
    desk = make_desk([b"a", b"b"], outside=outside, ack="explicit")
    peer = Peer(desk, logged_in=True)
    assert peer.ask(f"RPOPLPUSH {QUEUE} own") == [b"a"]
    peer.ask(
        "MULTI", f"LPUSH {OUTPUT} 1", f"LLEN {OUTPUT}", "LREM own 1 a", f"LPUSH {OUTPUT} 2",
        f"RPOPLPUSH {QUEUE} own", "EXEC",
    )  # fmt: skip
    peer.vanish(was_read=False)
    outside.answer(0)
    assert [[p.values for p in t.results] for t in outside.committed] == [[[b"1"], [b"2"]]]
    assert desk.work.deliveries == [], "nobody was there to take another item"
    assert desk.stock.peek("R") == [b"b"]


# --- order, and what is kept


def test_replies_come_in_the_order_of_the_commands(peer: Peer, outside: FakeOutside) -> None:
    assert peer.ask("PING", f"LLEN {OUTPUT}", "ECHO last", f"LLEN {OUTPUT}", "PING") == [b"PONG"]
    outside.answer(7)
    assert peer.replies() == [7, b"last"]
    outside.answer(8)
    assert peer.replies() == [8, b"PONG"]


def test_commands_that_wait_are_counted_and_forgotten_when_they_are_done(
    peer: Peer, outside: FakeOutside
) -> None:
    conversation = peer.conversation
    peer.ask(f"LLEN {OUTPUT}")
    assert conversation.backlog_bytes == 0
    peer.ask(*[f"ECHO {'x' * 1_000}"] * 50)
    assert conversation.backlog_bytes > 50_000
    peer.ask("MULTI", *[f"LPUSH {OUTPUT} {'x' * 1_000}"] * 50)
    assert conversation.backlog_bytes > 100_000
    outside.answer(0)
    assert 50_000 < conversation.backlog_bytes < 100_000, "what the MULTI holds is kept as well"
    peer.ask("DISCARD")
    assert conversation.backlog_bytes == 0
    peer.ask("MULTI", *[f"LPUSH {OUTPUT} {'x' * 1_000}"] * 50, "EXEC")
    assert conversation.backlog_bytes > 50_000, "what is carried out is kept until all is"
    for _ in range(50):
        outside.through.pop()[1](None)
    assert conversation.backlog_bytes == 0
    assert len(peer.replies()[-1]) == 50


def test_what_is_waited_for_is_counted(peer: Peer, outside: FakeOutside) -> None:
    """Redis may be away, and each connection may send it something large."""
    peer.ask(f"LPUSH {OUTPUT} {'x' * 50_000}")
    assert peer.conversation.kept_bytes > 50_000
    outside.through.pop()[1](None)
    assert peer.replies() == [1]
    assert peer.conversation.kept_bytes == 0


def test_replies_of_an_exec_are_counted_until_they_are_sent(
    peer: Peer, outside: FakeOutside
) -> None:
    words = [f"ECHO {'x' * 10_000}"] * 30
    peer.ask("MULTI", *words, f"LLEN {OUTPUT}", *words, "EXEC")
    commands = peer.conversation.backlog_bytes
    assert peer.conversation.kept_bytes - commands > 300_000
    assert peer.most_kept - commands > 250_000, "it says so as they grow"
    outside.answer(7)
    assert peer.most_kept - commands > 550_000
    assert peer.replies()[-1] == [*[b"x" * 10_000] * 30, 7, *[b"x" * 10_000] * 30]
    assert peer.conversation.kept_bytes == 0


def test_a_large_reply_to_an_exec_is_not_joined(peer: Peer) -> None:
    written: list[int] = []
    write = peer.conversation._write

    def count(data: bytes) -> None:
        written.append(len(data))
        write(data)

    peer.conversation._write = count
    replies = peer.ask("PING", "MULTI", *[f"ECHO {'x' * 10_000}"] * 100, "EXEC", "PING")
    assert replies[-2:] == [[b"x" * 10_000] * 100, b"PONG"]
    assert max(written) < 2 * 64 * 1024


def test_an_exec_whose_replies_nobody_will_read_keeps_none_and_is_carried_out(
    peer: Peer, desk: Desk, outside: FakeOutside
) -> None:
    desk.stock.taken("R", leases(b"a"), take=0, is_exhausted=False)
    peer.ask(f"RPOP {QUEUE}")
    most = 0

    def is_too_much() -> None:
        nonlocal most
        most = max(most, peer.conversation.kept_bytes)
        assert peer.conversation.drop_replies()

    peer.conversation._has_grown = is_too_much
    words = [f"ECHO {'x' * 10_000}"] * 100
    peer.ask("MULTI", f"LPUSH {OUTPUT} 1", *words, f"LPUSH {OUTPUT} 2")
    assert peer.ask("EXEC") == []
    assert peer.conversation._reply_bytes == 0
    peer.vanish(was_read=False)
    assert peer.conversation._reply_bytes == peer.conversation.kept_bytes == 0
    desk.ended(well=True, is_to_blame=True)
    assert outside.results == [b"1", b"2"]
    assert most < 2 * 1_000 * 1_000


def test_an_answer_to_who_does_not_read_is_told_of(peer: Peer, outside: FakeOutside) -> None:
    """What is sent before that has stopped it; nothing else would tell that there is more."""
    told = 0

    def count() -> None:
        nonlocal told
        told += 1

    peer.conversation._has_grown = count
    peer.ask(f"LLEN {OUTPUT}")
    outside.answer(7)
    assert told == 0
    peer.ask(f"LLEN {OUTPUT}")
    peer.conversation.pause()
    outside.answer(7)
    assert told == 1
    assert peer.conversation.sending_bytes > 0
    peer.conversation.resume()
    assert peer.conversation.sending_bytes == 0


@pytest.mark.parametrize("end", ["EXEC", "DISCARD", "RESET", "QUIT"])
def test_whatever_ends_a_multi_frees_what_it_held(peer: Peer, end: str) -> None:
    peer.ask("MULTI", *["PING"] * 100)
    assert peer.conversation.backlog_bytes > 1_000
    peer.ask(end)
    assert peer.conversation.backlog_bytes == 0


def test_a_multi_that_is_spoilt_keeps_nothing(peer: Peer) -> None:
    peer.ask("MULTI", *["PING"] * 100, "GET x")
    peer.ask(*["PING"] * 100)
    assert peer.conversation.backlog_bytes == 0


@pytest.mark.parametrize("multi", [False, True])
def test_a_long_pipeline_is_carried_out_in_turns(peer: Peer, multi: bool) -> None:
    words = [f"ECHO {n}" for n in range(1_800)]
    commands = ["MULTI", *words, "EXEC"] if multi else words
    expected = [b"%d" % n for n in range(1_800)]
    begun = 0

    def count(then: Callable[[], None]) -> None:
        nonlocal begun
        begun += 1
        peer.turns.append(then)

    peer.conversation._in_turn = count
    replies = peer.ask(*commands, "PING")
    assert begun >= 3
    assert replies[-1] == b"PONG"
    assert (replies[-2] if multi else replies[:-1]) == expected


def test_a_multi_whose_connection_is_gone_between_two_turns_is_carried_out(
    peer: Peer, outside: FakeOutside, desk: Desk
) -> None:
    desk.stock.taken("R", leases(b"a"), take=0, is_exhausted=False)
    peer.ask(f"RPOP {QUEUE}")
    pushes = [pack("LPUSH", OUTPUT, f"{n}") for n in range(1_200)]
    peer.conversation.receive(peer._commands.feed(pack("MULTI") + b"".join(pushes) + pack("EXEC")))
    while not peer.conversation.in_exec:
        peer.turns.popleft()()
    peer.vanish(was_read=False)
    desk.ended(well=True, is_to_blame=True)
    assert len(outside.results) == 1_200


def test_a_container_that_does_not_read_is_made_no_more_replies(peer: Peer) -> None:
    """Replies are written before the next are made, so that a full buffer stops them."""
    written = []

    def write(data: bytes) -> None:
        written.append(len(data))
        peer.conversation.pause()

    peer.conversation._write = write
    peer.ask(*["ECHO " + "x" * 50_000] * 100)
    assert sum(written) < 4 * MAX_INLINE_BYTES
    asked = len(written)
    peer.conversation.resume()
    assert len(written) == asked + 1
