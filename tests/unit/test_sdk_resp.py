"""Redis' protocol: whatever goes out is what Redis reads, and replies survive any cut."""

from __future__ import annotations

import itertools
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcore.sdk.grid.resp import LARGE_BYTES, Replies, ReplyError, encoded

CONVERSATION: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":-42\r\n", -42),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"$6\r\n*1\r\n\r\n\r\n", b"*1\r\n\r\n"),
    (b"-NOAUTH first\r\n", ReplyError("NOAUTH first")),
    (
        b"*2\r\n*2\r\n$2\r\nup\r\n*1\r\n:7\r\n*3\r\n$-1\r\n-BUSY x\r\n+y\r\n",
        [[b"up", [7]], [None, ReplyError("BUSY x"), b"y"]],
    ),
]

words = st.binary(max_size=30)
lines = st.text(alphabet="abc 0-*$", max_size=8).map(str.encode)
simple = st.one_of(
    words.map(lambda word: b"$%d\r\n%b\r\n" % (len(word), word)),
    lines.map(lambda line: b"+%b\r\n" % line),
    lines.map(lambda line: b"-ERR %b\r\n" % line),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b":%d\r\n" % number),
    st.sampled_from((b"$-1\r\n", b"*-1\r\n")),
)
replies = st.recursive(
    simple,
    lambda inner: st.lists(inner, max_size=4).map(
        lambda parts: b"*%d\r\n%b" % (len(parts), b"".join(parts))
    ),
    max_leaves=8,
)


def test_a_large_answer_in_pieces_is_not_kept_twice() -> None:
    part = bytes(3 * LARGE_BYTES)
    stream = b"*3\r\n" + 3 * (b"$%d\r\n%b\r\n" % (len(part), part))
    reader = Replies()
    for start in range(0, len(stream), 1000):
        assert reader.next() == (False, None)
        reader.feed(stream[start : start + 1000])
        assert len(reader._buffer) < len(part) + 2 * LARGE_BYTES
    assert reader.next() == (True, [part] * 3)
    assert not reader._buffer


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def read(*pieces: bytes) -> list[Any]:
    """All replies in these pieces, taken out as soon as they are there."""
    reader = Replies()
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (next_one := reader.next())[0]:
            found.append(comparable(next_one[1]))
    return found


def as_hiredis_reads(stream: bytes) -> list[Any]:
    reader = hiredis.Reader(replyError=ReplyError, protocolError=ConnectionError)
    reader.feed(stream)
    found = []
    while (reply := reader.gets()) is not False:
        found.append(comparable(reply))
    return found


def comparable(reply: Any) -> Any:
    if isinstance(reply, list):
        return [comparable(item) for item in reply]
    return ("error", str(reply)) if isinstance(reply, ReplyError) else reply


def test_each_kind_of_reply_is_read_as_what_it_is() -> None:
    stream = b"".join(sent for sent, _ in CONVERSATION)
    assert read(stream) == [comparable(meant) for _, meant in CONVERSATION]


def test_wherever_a_conversation_is_cut_its_replies_are_the_same() -> None:
    stream = b"".join(sent for sent, _ in CONVERSATION)
    whole = read(stream)
    for place in range(len(stream) + 1):
        assert read(stream[:place], stream[place:]) == whole
    assert read(*(stream[place : place + 1] for place in range(len(stream)))) == whole


@given(st.lists(replies, max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_replies_are_those_that_hiredis_reads(parts: list[bytes], at: list[int]) -> None:
    stream = b"".join(parts)
    assert read(*cut(stream, at)) == as_hiredis_reads(stream)


@given(replies)
def test_half_a_reply_is_none_yet(reply: bytes) -> None:
    reader = Replies()
    for place in range(len(reply)):
        assert reader.next() == (False, None)
        reader.feed(reply[place : place + 1])
    assert reader.next()[0]
    assert reader.next() == (False, None), "and nothing is left"


def test_a_large_value_arrives_in_pieces_and_is_looked_at_when_it_is_whole() -> None:
    value = bytes(range(256)) * 20_000
    stream = b"*2\r\n$1\r\nx\r\n$%d\r\n%b\r\n+next\r\n" % (len(value), value)
    pieces = [stream[start : start + 65_536] for start in range(0, len(stream), 65_536)]
    assert read(*pieces) == [[b"x", value], b"next"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 No\r\n",
        b"\r\n",
        b"$x\r\n",
        b"*many\r\n",
        b":1.5\r\n",
        b"*1\r\n?\r\n",
    ],
)
def test_what_is_no_reply_is_an_end_of_the_connection(garbage: bytes) -> None:
    with pytest.raises(ConnectionError, match="not the protocol of Redis"):
        read(garbage)


@given(st.lists(st.one_of(words, st.integers(), st.text(max_size=9)), min_size=1, max_size=6))
def test_a_command_is_an_array_of_its_words(command: list[bytes | int | str]) -> None:
    sent = b"".join(encoded(command))
    assert as_hiredis_reads(sent) == [[as_word(word) for word in command]]


def as_word(word: bytes | int | str) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


def test_a_large_argument_is_sent_as_it_is_and_all_else_in_one_piece() -> None:
    large = memoryview(bytes(LARGE_BYTES + 1))
    pieces = encoded(("HSET", "key", "field", large))
    assert [piece is large for piece in pieces] == [False, True, False]
    assert as_hiredis_reads(b"".join(pieces)) == [[b"HSET", b"key", b"field", bytes(large)]]
    assert len(encoded(("XADD", "key", "*", "l", bytes(LARGE_BYTES)))) == 1
