"""Streams through the gateway: who waits for an entry gets it, whatever happens in between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.desks import pack
from tests.support.gateway import QUEUE, Gateway, OpenRun, client
from tests.support.raw_clients import RawClient
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

WITHIN_S = 20.0


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


@pytest.fixture
def gateway(redis_server: RedisServer) -> Iterator[Gateway]:
    with Gateway(redis_server.url, keys=["box*"]) as made:
        yield made


def soon(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, within_s=WITHIN_S, what=what)


def waiting(gateway: Gateway) -> list[bytes]:
    """Streams that Redis was asked for, and will tell of."""
    return sorted(gateway.delivery.ledger._streams._asked or {})


END = b"end"


class Reader:
    """A thread of a container's program that waits for entries, until it reads END."""

    def __init__(self, run: OpenRun, *streams: str, **options: Any) -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._known = dict.fromkeys(streams, "0-0")
        self._run, self._options = run, options
        self._thread = threading.Thread(target=self._read)

    def expect(self, *values: bytes) -> None:
        assert [self.got.get(timeout=WITHIN_S)[1] for _ in values] == list(values)

    def _read(self) -> None:
        with client(self._run, **self._options) as container:
            value = b""
            while value != END:
                found = container.xread(self._known, block=0)
                streams = found.items() if isinstance(found, dict) else found
                for name, entries in streams:
                    for entry, fields in _flat(entries):
                        self._known[name.decode()] = entry.decode()
                        value = fields[b"value"]
                        self.got.put((name.decode(), value))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()


def _flat(entries: Sequence[Any]) -> Sequence[Any]:
    """redis-py gives them in a list more with RESP3."""
    return entries[0] if entries and isinstance(entries[0], list) else entries


@contextmanager
def reading(store: Any, run: OpenRun, *streams: str, **options: Any) -> Iterator[Reader]:
    with Reader(run, *streams, **options) as reader:
        try:
            yield reader
        finally:
            add(store, streams[0], END)


def add(store: Any, name: str, *values: str | bytes) -> None:
    for value in values:
        store.xadd(name, {"value": value})


def test_streams_are_written_read_and_trimmed_as_in_redis(store: Any, gateway: Gateway) -> None:
    run = gateway.open_run()
    with client(run) as container, client(run, protocol=3) as newer:
        ids = [container.xadd("box", {"value": n}) for n in range(5)]
        for streams, options in (
            ({"box": ids[1]}, {}),
            ({"box": "0", "box2": "0"}, {"count": 2}),
            ({"box": ids[0]}, {"count": 1, "block": 1_000}),
            ({"box": ids[4]}, {"block": 20}),
            ({"box": "$"}, {}),
        ):
            assert container.xread(streams, **options) == store.xread(streams, **options)
        assert newer.xread({"box": ids[3]}) == {b"box": [[(ids[4], {b"value": b"4"})]]}
        assert newer.xread({"box": ids[4]}, block=20) == {}
        assert container.xdel("box", ids[4]) == 1
        assert container.xtrim("box", maxlen=2, approximate=False) == 2
        assert container.xlen("box") == 2
        for command in (
            ("XREAD", "BLOCK", "0", "STREAMS", "other", "0"),
            ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "box", ">"),
        ):
            with pytest.raises(redis.ResponseError, match="gridcore"):
                container.execute_command(*command)


@pytest.mark.parametrize("protocol", [2, 3])
def test_who_waits_gets_each_entry_once_and_in_order(
    store: Any, gateway: Gateway, protocol: int
) -> None:
    with reading(store, gateway.open_run(), "box", protocol=protocol) as reader:
        for n in range(200):
            add(store, "box", b"%d" % n)
            if n % 3 == 0:
                soon(lambda: waiting(gateway) == [b"box"], "the wait")
        reader.expect(*(b"%d" % n for n in range(200)))


def test_a_second_run_is_heard_while_the_first_one_waits(store: Any, gateway: Gateway) -> None:
    one, other = gateway.open_run(0), gateway.open_run(1)
    with reading(store, one, "box1") as first:
        soon(lambda: waiting(gateway) == [b"box1"], "the first wait")
        with reading(store, other, "box2", "box3") as second:
            soon(lambda: len(waiting(gateway)) == 3, "all three")
            add(store, "box3", "for the second")
            second.expect(b"for the second")
            add(store, "box1", "for the first")
            first.expect(b"for the first")


def test_all_waits_of_a_node_share_one_connection(store: Any, gateway: Gateway) -> None:
    def that_wait() -> int:
        clients = store.client_list()
        return sum(one["cmd"] == "xread" and "b" in one["flags"] for one in clients)

    runs = gateway.open_run(0), gateway.open_run(1)
    names = [f"box{n}" for n in range(20)]
    with ExitStack() as readers:
        made = [
            readers.enter_context(reading(store, runs[n % 2], name, "box"))
            for n, name in enumerate(names)
        ]
        soon(lambda: len(waiting(gateway)) == 21, "all to wait")
        soon(lambda: that_wait() == 1, "the one call")
        add(store, "box", "to all")
        for reader in made:
            reader.expect(b"to all")
        for name in names:
            add(store, name, name)
        for name, reader in zip(names, made, strict=True):
            reader.expect(name.encode())


def test_who_knows_more_gets_only_what_is_later(store: Any, gateway: Gateway) -> None:
    add(store, "box", "a", "b")
    (_, entries), *_ = store.xread({"box": "0"})
    run = gateway.open_run()
    with client(run) as early, client(run) as late:
        assert late.xread({"box": entries[1][0]}, block=10) == []
        # The early one finds two entries at once, and does not disturb the late one.
        assert len(early.xread({"box": "0"}, block=0)[0][1]) == 2
        assert late.xread({"box": entries[0][0]}, block=0)[0][1] == entries[1:]


def test_while_redis_is_away_who_waits_goes_on_waiting() -> None:
    with (
        RedisServer(appendonly=True) as server,
        redis.Redis.from_url(server.url) as store,
        Gateway(server.url, keys=["box*"]) as gateway,
        reading(store, gateway.open_run(), "box") as reader,
    ):
        soon(lambda: waiting(gateway), "the wait")
        for value in ("a", "b"):
            server.kill()
            soon(lambda: not waiting(gateway), "the node to notice")
            server.start()
            add(store, "box", value)
            reader.expect(value.encode())
            soon(lambda: waiting(gateway), "the next wait")


def test_a_connection_that_is_killed_loses_nothing(store: Any, gateway: Gateway) -> None:
    with reading(store, gateway.open_run(), "box") as reader:
        for n in range(5):
            soon(lambda: waiting(gateway), "the wait")
            store.client_kill_filter(_type="normal", skipme=True)
            add(store, "box", b"%d" % n)
            reader.expect(b"%d" % n)


def test_a_redis_that_refuses_to_interrupt_is_asked_over_a_new_connection() -> None:
    """As the user that a hoster gives one may be forbidden what is thought dangerous."""
    with RedisServer() as server, redis.Redis.from_url(server.url) as store:
        store.execute_command(
            "ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-client|unblock"
        )
        url = server.url.replace("redis://", "redis://limited:pw@")
        with Gateway(url, keys=["box*"]) as gateway:
            one, other = gateway.open_run(0), gateway.open_run(1)
            with (
                reading(store, one, "box1") as first,
                reading(store, other, "box2") as second,
            ):
                soon(lambda: len(waiting(gateway)) == 2, "both to wait")
                add(store, "box2", "b")
                second.expect(b"b")
                add(store, "box1", "a")
                first.expect(b"a")


def test_a_key_that_is_no_stream_disturbs_nobody_else(store: Any, gateway: Gateway) -> None:
    one, other = gateway.open_run(0), gateway.open_run(1)
    with reading(store, one, "box1") as reader, client(other) as container:
        store.lpush("box2", "x")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            container.xread({"box2": "0"}, block=0)
        store.delete("box2")
        failed: queue.Queue[Exception] = queue.Queue()

        def wait_for_what_becomes_a_list() -> None:
            try:
                container.xread({"box2": "0"}, block=0)
            except redis.RedisError as error:
                failed.put(error)

        thread = threading.Thread(target=wait_for_what_becomes_a_list)
        thread.start()
        soon(lambda: len(waiting(gateway)) == 2, "both to wait")
        store.lpush("box2", "x")
        add(store, "box1", "a", "b")
        reader.expect(b"a", b"b")
        assert "WRONGTYPE" in str(failed.get(timeout=WITHIN_S))
        thread.join()


def test_a_wait_ends_with_its_connection_and_with_its_run(store: Any, gateway: Gateway) -> None:
    run = gateway.open_run()
    with client(run, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as container:
        with pytest.raises(redis.TimeoutError):
            container.xread({"box1": "0"}, block=0)
        with reading(store, run, "box2"):
            soon(lambda: waiting(gateway) == [b"box2"], "what has given up to be forgotten")
    with RawClient(run.host, run.port, run.password) as abandoned:
        abandoned.socket.sendall(pack("XREAD", "BLOCK", "0", "STREAMS", "box3", "0"))
        soon(lambda: waiting(gateway) == [b"box3"], "the wait")
        gateway.end_run(run)
    with reading(store, gateway.open_run(), "box4"):
        soon(lambda: waiting(gateway) == [b"box4"], "what has ended to be forgotten")


def test_a_large_entry_arrives(store: Any, gateway: Gateway) -> None:
    large = b"x" * 30_000_000
    with reading(store, gateway.open_run(), "box") as reader:
        soon(lambda: waiting(gateway), "the wait")
        add(store, "box", large, large)
        reader.expect(large, large)


def test_items_flow_beside_waits(store: Any, gateway: Gateway) -> None:
    """One connection of a run waits for entries while another one works."""
    store.lpush(QUEUE, *range(100))
    run = gateway.open_run()
    with reading(store, run, "box") as reader, client(run) as worker:
        for _ in range(100):
            item = worker.brpop(QUEUE, 5)[1]
            add(store, "box", item)
            reader.expect(item)
