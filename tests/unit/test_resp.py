"""Bytes to commands: however a stream is cut, and whoever has written it."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridnode.gateway import resp
from gridnode.gateway.resp import Command, CommandReader, ProtocolError
from tests.support.desks import pack

words = st.binary(max_size=40)
bare_words = st.text(alphabet="abcXYZ019:_-{}/", min_size=1, max_size=12).map(str.encode)

as_arrays = st.lists(words, min_size=1, max_size=5).map(lambda command: (pack(*command), [command]))
as_lines = st.tuples(
    st.lists(bare_words, min_size=1, max_size=4), st.sampled_from((b"\r\n", b"\n"))
).map(lambda line: (b" ".join(line[0]) + line[1], [line[0]]))
ignored: st.SearchStrategy[tuple[bytes, list[Command]]] = st.sampled_from(
    (b"\r\n", b"\n", b"   \r\n", b"*0\r\n", b"*-1\r\n")
).map(lambda line: (line, []))
streams = st.lists(st.one_of(as_arrays, as_lines, ignored), max_size=8).map(
    lambda parts: (b"".join(sent for sent, _ in parts), [c for _, found in parts for c in found])
)

nearly_resp = st.lists(
    st.sampled_from(
        (b"*", b"$", b"1", b"2", b"0", b"-", b"+", b"_", b" ", b"\r", b"\n", b"\r\n", b"a", b'"')
    ),
    max_size=40,
).map(b"".join)


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def read(*pieces: bytes) -> list[Command]:
    reader = CommandReader()
    return [list(command) for piece in pieces for command in reader.feed(piece)]


def read_or_refuse(*pieces: bytes) -> list[Command] | None:
    try:
        return read(*pieces)
    except ProtocolError:
        return None


@given(streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_however_a_stream_is_cut_its_commands_are_the_same(
    stream: tuple[bytes, list[Command]], at: list[int]
) -> None:
    sent, commands = stream
    assert read(*cut(sent, at)) == commands


@given(streams)
def test_a_stream_may_come_byte_by_byte(stream: tuple[bytes, list[Command]]) -> None:
    sent, commands = stream
    assert read(*(bytes([byte]) for byte in sent)) == commands


@given(nearly_resp, st.lists(st.integers(0, 1_000), max_size=8))
def test_nonsense_is_the_same_nonsense_however_it_is_cut(sent: bytes, at: list[int]) -> None:
    assert read_or_refuse(*cut(sent, at)) == read_or_refuse(sent)


@given(st.lists(streams, max_size=6))
def test_what_a_loop_sends_again_and_again_is_read_again_and_again(
    parts: list[tuple[bytes, list[Command]]],
) -> None:
    pieces = [sent for sent, _ in parts]
    commands = [command for _, found in parts for command in found]
    assert read(*pieces, *pieces, *pieces[::-1], *pieces) == (
        commands * 2 + [c for _, found in parts[::-1] for c in found] + commands
    )


@given(st.lists(st.one_of(nearly_resp, st.binary(max_size=200)), max_size=20))
def test_no_more_is_kept_than_one_command_may_hold(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resp, "MAX_COMMAND_BYTES", 100)
        patch.setattr(resp, "MAX_INLINE_BYTES", 50)
        reader = CommandReader()
        try:
            for piece in pieces:
                reader.feed(piece)
                assert reader.kept_bytes <= 100 + 32
        except ProtocolError:
            pass


def test_a_command_is_there_with_its_last_byte() -> None:
    reader = CommandReader()
    sent = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n"
    assert reader.feed(sent[:-1]) == []
    assert reader.kept_bytes == len(sent) - 1
    assert reader.feed(sent[-1:]) == [[b"ECHO", b"hi"]]
    assert reader.kept_bytes == 0


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"PING\r\n", [b"PING"]),
        (b"PING\n", [b"PING"]),
        (b"  LPUSH \t done   1  \r\n", [b"LPUSH", b"done", b"1"]),
        (b'LPUSH done "two words"\n', [b"LPUSH", b"done", b"two words"]),
        (b"LPUSH done 'two words'\n", [b"LPUSH", b"done", b"two words"]),
        (b'LPUSH done ""\n', [b"LPUSH", b"done", b""]),
        (rb'LPUSH done "a\r\n\t\a\b\\\"\x41\q"' + b"\n", [b"LPUSH", b"done", b'a\r\n\t\a\b\\"Aq']),
        (rb"LPUSH done 'it\'s \n'" + b"\n", [b"LPUSH", b"done", rb"it's \n"]),
        (b"LPUSH done a'b c'\n", [b"LPUSH", b"done", b"ab c"]),
    ],
)  # fmt: skip
def test_a_typed_line_is_read_as_redis_reads_it(line: bytes, command: Command) -> None:
    assert read(line) == [command]


@pytest.mark.parametrize("line", [b'ECHO "a\n', b"ECHO 'a\n", b'ECHO {"a":1}\n', b"ECHO 'a'b\n"])
def test_a_typed_line_whose_quotes_do_not_match_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="unbalanced quotes"):
        read(line)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"*1000001\r\n", "invalid multibulk length"),
        (b"*200000000\r\n", "invalid multibulk length"),
        (b"*99999999999999999999999999\r\n", "invalid multibulk length"),
        (b"*9" + b"9" * 40, "invalid length"),
        (b"*x\r\n", "invalid length"),
        (b"*\r\n", "invalid length"),
        (b"*1\r\n$67108865\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid length"),
        (b"*1\r\n" + b"$" + b"1" * 32, "invalid length"),
        (b"*1\r\n:1\r\n", r"expected '\$', got ':'"),
        (b"*2\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n", r"expected '\$', got '\*'"),
        (b"*1\r\nPING\r\n", r"expected '\$', got 'P'"),
        (b"x" * 65_537, "too big inline request"),
        (b"x" * 65_537 + b"\r\n", "too big inline request"),
        (b"*+1\r\n$4\r\nPING\r\n", "length"),
        (b"*1\r\n$0_4\r\nPING\r\n", "length"),
    ],
)
def test_what_is_too_much_or_makes_no_sense_is_refused_at_once(sent: bytes, error: str) -> None:
    with pytest.raises(ProtocolError, match=error):
        read(sent)


def test_many_strings_in_one_command_may_not_be_larger_than_one_large_string() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resp, "MAX_COMMAND_BYTES", 1_000)
        assert read(pack(b"x" * 900)) == [[b"x" * 900]]
        with pytest.raises(ProtocolError, match="invalid bulk length"):
            read(pack(*(b"x" * 400,) * 3))
        # The limit is one command's, not the connection's.
        assert len(read(pack(b"x" * 900) * 10)) == 10


def test_a_header_that_promises_much_costs_nothing() -> None:
    reader = CommandReader()
    tracemalloc.start()
    try:
        reader.feed(b"*1000000\r\n$60000000\r\n")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert reader.kept_bytes < 100


def test_a_large_value_in_many_pieces_is_read_in_linear_time() -> None:
    """Others wait meanwhile: it was copied with each piece, and stopped the node for seconds."""
    reader = CommandReader()
    value = b"x" * 30_000_000
    sent = pack(b"LPUSH", b"done", value)
    pieces = cut(sent, list(range(0, len(sent), 30_000)))
    began_s = time.process_time()
    found = [command for piece in pieces for command in reader.feed(piece)]
    assert time.process_time() - began_s < 1.5
    assert found == [[b"LPUSH", b"done", value]]


@given(
    st.recursive(
        st.one_of(st.none(), st.binary(max_size=20), st.integers(-(2**63), 2**63 - 1)),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=10,
    ),
    st.sampled_from((2, 3)),
)
def test_what_redis_has_answered_is_passed_on_as_it_was(value: object, protocol: int) -> None:
    reader = hiredis.Reader()
    reader.feed(resp.encode(value, protocol))
    assert reader.gets() == value
    assert reader.gets() is False


def test_an_error_stays_one_line_whatever_it_quotes() -> None:
    assert resp.error("ERR a\r\n+OK\nb") == b"-ERR a  +OK b\r\n"
