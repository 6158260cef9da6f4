"""Peers that send nonsense, too much or nothing: it costs them their connection, others nothing.

The gateway is a process of its own; what it takes is seen from outside, and beside each attack a
well-behaved program works in another slot.
"""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import pytest
import redis

from gridnode.gateway.arguments import ARITY
from gridnode.gateway.conversation import MAX_WRONG_PASSWORDS
from gridnode.gateway.server import MAX_CONNECTIONS, MAX_SLOT_BYTES
from tests.support.desks import pack
from tests.support.gateway import OUTPUT, QUEUE, Gateway
from tests.support.gateway_program import GatewayProgram, Place
from tests.support.raw_clients import RawClient
from tests.support.redis_server import RedisServer
from tests.support.slow_link import slow_link
from tests.support.waiting import wait_until

MB = 1024 * 1024

LONGEST_PAUSE_S = 10.0
"""Of the program beside, on a machine that has other things to do: it is not stopped."""


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


@pytest.fixture
def program(redis_server: RedisServer) -> Iterator[GatewayProgram]:
    with GatewayProgram(redis_server.url) as made:
        yield made


@pytest.fixture
def hostile(program: GatewayProgram) -> Place:
    return program.runs[0]


class Bystander:
    """A plain loop in the other slot. It makes its own items, so that none of them is elsewhere."""

    def __init__(self, place: Place) -> None:
        self.done = 0
        self.longest_s = 0.0
        self._place = place
        self._is_to_end = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def goes_on(self) -> None:
        before = self.done
        wait_until(lambda: self.done > before + 20, within_s=15, what="the program beside goes on")

    def _work(self) -> None:
        with redis.Redis.from_url(self._place.url, protocol=2, socket_timeout=30) as client:
            while not self._is_to_end.is_set():
                began_s = time.monotonic()
                # To the end that it takes from: what else is in the queue stays there.
                client.rpush(QUEUE, b"item %d" % self.done)
                _, item = client.brpop(QUEUE, 20)
                client.lpush(OUTPUT, item)
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.done += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_to_end.set()
        self._thread.join()


@contextmanager
def undisturbed(program: GatewayProgram, store: Any, *, within_bytes: int) -> Iterator[Bystander]:
    """While the body runs, and after it."""
    with Bystander(program.runs[1]) as bystander:
        bystander.goes_on()
        yield bystander
        bystander.goes_on()
    assert program.is_running
    assert program.peak_bytes - program.bytes_at_start < within_bytes
    assert bystander.longest_s < LONGEST_PAUSE_S
    done = bystander.done - 1
    wait_until(lambda: store.llen(OUTPUT) >= done, within_s=15, what="its results")
    arrived = store.lrange(OUTPUT, 0, -1)
    assert len(set(arrived)) == len(arrived), "each of them once"


def knock(place: Place, *, password: bool = True) -> RawClient:
    return RawClient(place.host, place.port, place.password if password else None)


def knock_deaf(place: Place) -> RawClient:
    """One that reads nothing, and has little room for what it does not read."""
    client = knock(place)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    return client


def fill(client: RawClient, data: bytes, *, times: int) -> bytes:
    """Sends it again and again, reading nothing, until the other side has had enough; what it has
    said then."""
    try:
        for _ in range(times):
            client.socket.sendall(data)
    except (ConnectionResetError, BrokenPipeError):
        return b""
    return client.read_to_the_end()


# --- nonsense


NONSENSE = (
    b"*200000000\r\n",
    b"*-99999999999999999999999999999999\r\n",
    b"*1\r\n$9999999999\r\n",
    b"*1\r\n*1\r\n" * 1_000,
    b"*2\r\n$4\r\nPING\r\n:1\r\n",
    b"x" * 100_000,
    random.Random(1).randbytes(100_000).replace(b"\n", b"x"),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n*" + b"9" * 100,
)


def test_nonsense_is_the_end_of_a_connection_and_of_nothing_else(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=20 * MB):
        for nonsense in 10 * NONSENSE:
            for password in (True, False):
                with knock(hostile, password=password) as client:
                    client.socket.sendall(nonsense)
                    client.read_to_the_end()
    assert program.log.count('reason="Protocol error"') == 1, "once a run, not once a connection"


def test_random_bytes_in_masses_are_no_trouble(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    chance = random.Random(7)
    alphabet = b'*$0123456789\r\n\r\n PINGxyz"\x00\xff'
    with undisturbed(program, store, within_bytes=20 * MB):
        for _ in range(200):
            with knock(hostile) as client:
                client.socket.sendall(bytes(chance.choices(alphabet, k=chance.randint(1, 2_000))))


# --- too much


def test_headers_that_promise_much_cost_nothing(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=20 * MB), ExitStack() as open_ones:
        for _ in range(100):
            client = open_ones.enter_context(knock(hostile))
            client.socket.sendall(b"*1000000\r\n$60000000\r\nx")


def test_large_commands_that_are_never_finished_are_limited_together(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    """Each is allowed. Together they are more than a slot may have."""
    with undisturbed(program, store, within_bytes=3 * MAX_SLOT_BYTES), ExitStack() as open_ones:
        header = b"*3\r\n$5\r\nLPUSH\r\n$4\r\ndone\r\n$60000000\r\n"
        for _ in range(6):
            client = open_ones.enter_context(knock(hostile))
            try:
                client.socket.sendall(header + b"x" * 50 * MB)
            except (ConnectionResetError, BrokenPipeError):
                break
        program.wait_logged("connection_closed .*more unanswered commands")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (pack("MULTI"), pack("LPUSH", OUTPUT, "x")),
        (pack("MULTI"), pack("ECHO", "x" * 10_000)),
        (pack("MULTI"), pack("PING") * 1_000),
    ],
    ids=["small results", "large words", "small words"],
)
def test_a_multi_that_never_ends_is_ended(
    program: GatewayProgram, hostile: Place, store: Any, first: bytes, then: bytes
) -> None:
    with undisturbed(program, store, within_bytes=4 * MAX_SLOT_BYTES), knock(hostile) as client:
        client.socket.sendall(first)
        reader = threading.Thread(target=client.read_to_the_end)
        reader.start()
        piece = then * max(1, 500_000 // len(then))
        fill(client, piece, times=2_000)
        reader.join()
        program.wait_logged("connection_closed .*more unanswered commands")


def test_a_pipeline_without_end_behind_a_pop_that_waits_is_ended(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with knock(hostile) as client:
        # Before the program beside makes items: this one is to wait for ever.
        client.send("BLMPOP", "0", "1", QUEUE, "LEFT")
        piece = pack("PING") * 40_000
        fill(client, piece, times=1_000)
        program.wait_logged("connection_closed .*more unanswered commands")
    with undisturbed(program, store, within_bytes=4 * MAX_SLOT_BYTES):
        pass


def test_who_asks_for_much_and_reads_nothing_is_made_no_more_replies(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=60 * MB), ExitStack() as open_ones:
        for _ in range(10):
            client = open_ones.enter_context(knock_deaf(hostile))
            client.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                # The gateway stops reading, so that this cannot go on for ever.
                fill(client, pack("ECHO", "x" * 1_000) * 1_000, times=1_000)


LOOK = pack("LRANGE", QUEUE, "0", "3499")
"""At seven megabytes, of `large_queue`: nearly as much as is answered."""


@pytest.fixture
def large_queue(store: Any) -> None:
    for first in range(0, 10_000, 250):
        store.rpush(QUEUE, *(b"%02000d" % n for n in range(first, first + 250)))


@pytest.mark.parametrize(
    ("reply_to", "peers", "slots"),
    [
        ([LOOK], 120, 2),
        ([pack("MULTI"), *[LOOK] * 60, pack("EXEC")], 1, 2),
        ([pack("MULTI"), *[LOOK] * 6, pack("EXEC")], 10, 2),
        # Each is there several times while it is read and answered.
        ([pack("ECHO", b"x" * 10 * MB)], 60, 4),
    ],
    ids=["looks", "looks in one MULTI", "looks in several MULTIs", "words"],
)
@pytest.mark.usefixtures("large_queue")
def test_large_replies_that_nobody_reads_are_limited_together(
    program: GatewayProgram,
    hostile: Place,
    store: Any,
    reply_to: list[bytes],
    peers: int,
    slots: int,
) -> None:
    """What is allowed, and once more for what is being made or sent just then. The system takes
    the first four megabytes of each connection."""
    within = slots * MAX_SLOT_BYTES
    with undisturbed(program, store, within_bytes=within), ExitStack() as open_ones:
        for _ in range(peers):
            client = open_ones.enter_context(knock_deaf(hostile))
            try:
                client.socket.sendall(b"".join(reply_to))
            except (ConnectionResetError, BrokenPipeError):
                break
        program.wait_logged("connection_closed .*unread replies")


def test_large_commands_leave_nothing_behind_when_they_are_answered(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=200 * MB), ExitStack() as open_ones:
        for _ in range(30):
            client = open_ones.enter_context(knock(hostile))
            client.socket.sendall(pack("NOSUCH", b"x" * 20 * MB))
            assert client.socket.recv(100).startswith(b"-NOPERM")


@pytest.mark.usefixtures("large_queue")
def test_who_takes_too_much_room_with_what_it_does_not_read_goes_at_once(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridnode.gateway.server.GOODBYE_S", 1_000.0)
    with Gateway(redis_server.url) as gateway, ExitStack() as open_ones:
        run = gateway.open_run()
        server = run.access._server
        place = Place(run.host, run.port, run.password)
        for _ in range(60):
            open_ones.enter_context(knock_deaf(place)).socket.sendall(LOOK)
        wait_until(
            lambda: 0 < len(server._connections) * 6 * MB < MAX_SLOT_BYTES,
            within_s=20,
            what="those that were too many are gone",
        )


@pytest.mark.usefixtures("large_queue")
def test_an_item_in_a_reply_that_is_dropped_goes_to_somebody_else(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with ExitStack() as open_ones:
        for _ in range(5):
            client = open_ones.enter_context(knock_deaf(hostile))
            client.socket.sendall(LOOK)
        last = b"%02000d" % 9_999
        with knock(hostile) as one_too_many:
            commands = [pack("MULTI"), pack("RPOP", QUEUE), *[LOOK] * 30, pack("EXEC")]
            one_too_many.socket.sendall(b"".join(commands))
            said = one_too_many.read_to_the_end()
            assert re.search(rb"-ERR .*unread replies", said)
            assert last not in said
    with knock(hostile) as another:
        assert last in another.ask("RPOP", QUEUE)


def test_a_name_that_is_repeated_in_replies_is_no_bomb(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=60 * MB), knock(hostile) as client:
        assert client.ask("CLIENT", "SETNAME", "x" * 1_000_000).startswith(b"-ERR")
        client.socket.settimeout(1.0)
        client.socket.sendall(pack("CLIENT", "GETNAME") * 2_000)
        assert client.socket.recv(5) == b"$-1\r\n"


def test_small_results_in_masses_are_limited(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    """Of an item that is never done; each of them takes more than its bytes."""
    store.lpush(QUEUE, "a")
    with knock(hostile) as client:
        assert client.ask("RPOP", QUEUE) == b"$1\r\na\r\n"
        with undisturbed(program, store, within_bytes=3 * MAX_SLOT_BYTES):
            seen = b""
            for _ in range(200):
                client.socket.sendall(pack("LPUSH", OUTPUT, "") * 5_000)
                while seen.count(b"\n") < 5_000:
                    seen += client.socket.recv(65_536)
                if b"-OOM" in seen:
                    break
                seen = b""
            assert b"-OOM command not allowed" in seen


def test_a_pop_of_a_billion_brings_a_bounded_batch(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    pipeline = store.pipeline(transaction=False)
    for first in range(0, 100_000, 10_000):
        pipeline.rpush("many", *(b"%0100d" % n for n in range(first, first + 10_000)))
    pipeline.execute()
    store.rename("many", QUEUE)
    with knock(hostile) as client:
        client.send("RPOP", QUEUE, "1000000000")
        assert client.socket.recv(8) == b"*10000\r\n"
    assert store.llen(QUEUE) > 50_000
    assert program.peak_bytes - program.bytes_at_start < 60 * MB


def test_a_look_at_a_million_items_is_refused(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    store.rpush(QUEUE, *(b"%d" % n for n in range(20_000)))
    with knock(hostile) as client:
        assert client.ask("LRANGE", QUEUE, "0", "-1").startswith(b"-ERR gridcore: ask for no more")


@pytest.mark.usefixtures("large_queue")
def test_a_large_look_over_a_slow_network_stops_nobody(
    redis_server: RedisServer, store: Any
) -> None:
    """Twenty megabytes in one answer would be ten seconds: the connection would be given up for
    it, and so would each one after it, as it would be asked again."""
    with (
        slow_link(redis_server.port, up=20 * MB, down=2 * MB) as link,
        GatewayProgram(f"redis://127.0.0.1:{link.port}/0") as program,
        undisturbed(program, store, within_bytes=60 * MB) as bystander,
    ):
        connections = link.connections
        with knock(program.runs[0]) as client:
            client.send("LRANGE", QUEUE, "0", "9500")
            bystander.goes_on()
            assert client.socket.recv(1) in b"-*", "an error, unless the others have taken most"
        bystander.goes_on()
        # Its items come over the same network.
        assert bystander.longest_s < 6.0
        assert link.connections == connections


def test_nothing_is_asked_for_who_is_gone() -> None:
    with (
        RedisServer() as server,
        redis.Redis.from_url(server.url) as store,
        GatewayProgram(server.url) as program,
    ):
        server.kill()
        for _ in range(50):
            with knock(program.runs[0]) as client:
                client.socket.sendall(pack("PING") + pack("TYPE", OUTPUT))
                assert client.socket.recv(100) == b"+PONG\r\n", "it has read both"
                client.reset()
        server.start()
        with knock(program.runs[0]) as client:
            assert client.ask("TYPE", OUTPUT) == b"+none\r\n"
        assert store.info("commandstats")["cmdstat_type"]["calls"] == 1


# --- too many


def test_thousands_of_connections_are_a_few_at_a_time(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=60 * MB), ExitStack() as open_ones:
        for _ in range(2_000):
            stranger = open_ones.enter_context(knock(hostile, password=False))
            stranger.socket.setblocking(False)
        with knock(hostile) as known:
            assert known.ask("PING") == b"+PONG\r\n", "who has the password is let in all the same"
    assert program.log.count("connection_closed") == 1


def test_a_program_has_as_many_connections_as_are_allowed_and_not_one_more(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=60 * MB), ExitStack() as open_ones:
        known = [open_ones.enter_context(knock(hostile)) for _ in range(MAX_CONNECTIONS)]
        with knock(hostile, password=False) as one_more:
            assert one_more.read_to_the_end() == b"-ERR max number of clients reached\r\n"
        assert all(client.ask("PING") == b"+PONG\r\n" for client in known)
        known[0].close()

        def is_let_in() -> bool:
            with knock(hostile, password=False) as another:
                return another.ask("AUTH", hostile.password) == b"+OK\r\n"

        wait_until(is_let_in, within_s=15, what="a place that has become free")


def test_pops_that_are_given_up_leave_nothing_behind(
    program: GatewayProgram, hostile: Place
) -> None:
    for _ in range(2_000):
        with knock(hostile, password=False) as client:
            client.socket.sendall(pack("AUTH", hostile.password) + pack("BRPOP", QUEUE, "1000000"))
            assert client.socket.recv(5) == b"+OK\r\n"
    assert program.peak_bytes - program.bytes_at_start < 20 * MB


# --- nothing


def test_a_stranger_is_shown_the_door(redis_server: RedisServer, store: Any) -> None:
    with (
        GatewayProgram(redis_server.url, login_within_s=0.5) as program,
        undisturbed(program, store, within_bytes=20 * MB),
        knock(program.runs[0]) as known,
        ExitStack() as open_ones,
    ):
        strangers = [
            open_ones.enter_context(knock(program.runs[0], password=False)) for _ in range(80)
        ]
        for n, stranger in enumerate(strangers):
            stranger.socket.sendall((b"", b"*2\r\n$4\r\nAU", b"PIN", pack("PING"))[n % 4])
        for stranger in strangers:
            assert stranger.read_to_the_end().endswith(b"-ERR no password in time\r\n")
        assert known.ask("PING") == b"+PONG\r\n", "who has logged in may be as quiet as it likes"
        program.wait_logged("connection_closed .*no password in time")


def test_a_stranger_may_not_send_much(program: GatewayProgram, hostile: Place, store: Any) -> None:
    with (
        undisturbed(program, store, within_bytes=20 * MB),
        knock(hostile, password=False) as stranger,
    ):
        fill(stranger, b"*2\r\n$4\r\nAUTH\r\n$50000000\r\n" + b"x" * 50 * MB, times=1)
        program.wait_logged("connection_closed .*long commands before a password")


# --- wrong


def test_wrong_passwords_in_masses_are_logged_once_and_get_nobody_in(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    with undisturbed(program, store, within_bytes=20 * MB):
        for _ in range(200):
            with knock(hostile, password=False) as guesser:
                guesser.socket.sendall(b"".join(pack("AUTH", f"guess {n}") for n in range(1_000)))
                assert guesser.read_to_the_end().count(b"-WRONGPASS") <= MAX_WRONG_PASSWORDS
        with knock(hostile) as known:
            assert known.ask("PING") == b"+PONG\r\n"
    assert program.log.count("wrong passwords") == 1


def test_what_redis_would_refuse_in_a_multi_is_refused(hostile: Place, store: Any) -> None:
    known = store.execute_command("COMMAND", "INFO", *ARITY)
    assert {name.upper().encode(): facts["arity"] for name, facts in known.items()} == ARITY
    with knock(hostile) as client:
        for name, arity in ARITY.items():
            words = 2 if arity == 1 else abs(arity) - 1
            if words:
                assert client.ask("MULTI") == b"+OK\r\n"
                refusal = client.ask(name, *["x"] * (words - 1))
                assert refusal.startswith(b"-ERR wrong number of arguments for"), name
                assert client.ask("EXEC").startswith(b"-EXECABORT")


def test_an_error_of_redis_keeps_its_code(redis_server: RedisServer, store: Any) -> None:
    store.config_set("maxmemory-policy", "noeviction")
    direct = RawClient("127.0.0.1", redis_server.port)
    with Gateway(redis_server.url, keys=["cache:*"]) as gateway, direct:
        run = gateway.open_run()
        with RawClient(run.host, run.port, run.password) as container:
            store.set("cache:text", "x")
            store.config_set("maxmemory", 1)
            for command in (
                ("SET", "cache:x", "1"),
                ("LPUSH", "cache:text", "1"),
                ("LLEN", "cache:text"),
                ("SET", "cache:x"),
                ("EXPIRE", "cache:text", "soon"),
            ):
                assert container.ask(*command) == direct.ask(*command), command


# --- without end


def test_a_flood_of_commands_slows_others_and_does_not_stop_them(
    program: GatewayProgram, hostile: Place, store: Any
) -> None:
    """From one slot's core; the gateway has another."""
    with undisturbed(program, store, within_bytes=60 * MB) as bystander, ExitStack() as open_ones:
        before = bystander.done
        flood = pack("PING") * 3_000
        for _ in range(4):
            client = open_ones.enter_context(knock(hostile))
            for _ in range(100):
                client.socket.sendall(flood)
                left = 3_000 * len(b"+PONG\r\n")
                while left:
                    left -= len(client.socket.recv(min(left, 65_536)))
        assert bystander.done > before + 10
