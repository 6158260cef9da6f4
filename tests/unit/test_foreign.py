"""Commands on further keys: only what a task allows, and nothing that could reach beyond it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridnode.gateway.foreign import CommandFacts, KeyRules, facts, keys_of


def known(
    first: int = 1, last: int = 1, step: int = 1, *, kinds: str = "@read @fast", moves: bool = False
) -> CommandFacts:
    return CommandFacts(frozenset(kinds.split()), first, last, step, moves)


GET, SET = known(), known(kinds="@write @string @slow")
MSET = known(1, -1, 2, kinds="@write")
DEL = known(1, -1, kinds="@write @keyspace")
BITOP = known(2, -1, kinds="@write @bitmap")


def split(command: str) -> list[bytes]:
    return command.encode().split()


@pytest.mark.parametrize(
    ("command", "facts", "keys"),
    [
        ("GET a", GET, "a"),
        ("SET a b EX 10", SET, "a"),
        ("MSET a 1 b 2", MSET, "a b"),
        ("DEL a b c", DEL, "a b c"),
        ("BITOP AND to a b", BITOP, "to a b"),
        ("RENAME a b", known(1, 2), "a b"),
    ],
)
def test_the_keys_of_a_command_are_found(command: str, facts: CommandFacts, keys: str) -> None:
    assert keys_of(split(command), facts) == split(keys)


@pytest.mark.parametrize(
    ("command", "facts"),
    [
        ("EVAL return 0", known(0, 0, 0, kinds="@slow @scripting", moves=True)),
        ("FCALL f 0", known(0, 0, 0, kinds="@slow @scripting", moves=True)),
        ("FLUSHALL", known(0, 0, 0, kinds="@keyspace @write @slow @dangerous")),
        ("KEYS *", known(0, 0, 0, kinds="@keyspace @read @slow @dangerous")),
        ("SORT a BY other", known(kinds="@write @set @slow @dangerous", moves=True)),
        ("BLPOP a 0", known(1, -2, kinds="@write @list @slow @blocking")),
        ("SUBSCRIBE a", known(0, 0, 0, kinds="@pubsub @slow")),
        ("MIGRATE a", known(3, 3, kinds="@keyspace @write @slow @dangerous")),
        ("SELECT 1", known(0, 0, 0, kinds="@fast @connection")),
        ("MONITOR", known(0, 0, 0, kinds="@admin @slow @dangerous")),
        ("ZUNIONSTORE to 1 a", known(1, 1, moves=True)),
        ("SCAN 0", known(0, 0, 0, kinds="@keyspace @read @slow")),
        ("RANDOMKEY", known(0, 0, 0, kinds="@keyspace @read @slow")),
        ("DBSIZE", known(0, 0, 0, kinds="@keyspace @read @fast")),
        ("COPY a b DB 1", known(1, 2, kinds="@keyspace @write @slow")),
        ("move a 1", known(kinds="@keyspace @write @fast")),
        ("OBJECT FREQ a", known(2, 2, kinds="@slow")),
        ("GET", GET),
    ],
)
def test_what_could_block_others_or_reach_other_keys_is_never_passed_on(
    command: str, facts: CommandFacts
) -> None:
    assert keys_of(split(command), facts) is None


def test_what_redis_says_of_a_command_is_read_in_either_protocol() -> None:
    resp2 = [b"get", 2, [b"readonly", b"fast"], 1, 1, 1, [b"@read", b"@string", b"@fast"]]
    resp3 = ["sort", -2, {"write", "movablekeys"}, 1, 1, 1, {"@write", "@dangerous"}]
    assert facts(resp2) == known(kinds="@read @string @fast")
    assert facts(resp3) == known(kinds="@write @dangerous", moves=True)


def test_a_pattern_names_keys_as_in_redis() -> None:
    rules = KeyRules(("work", "done"), ["cache:*", "count:?", "plain", "a.b"])
    for key in (b"cache:", b"cache:x:y", b"cache:\n\xff", b"count:1", b"plain", b"a.b"):
        assert rules.allow(key)
    for key in (b"Cache:x", b"xcache:x", b"count:", b"count:12", b"plainer", b"axb", b""):
        assert not rules.allow(key)


def test_who_names_no_keys_may_use_none() -> None:
    rules = KeyRules(("work", "done"), [])
    assert not rules.allow_any
    assert not rules.allow(b"anything")


@given(st.text(alphabet="gc:*?workdne{}", max_size=8), st.binary(max_size=12))
def test_no_pattern_opens_the_queues_or_our_own_keys(pattern: str, key: bytes) -> None:
    rules = KeyRules(("work", "done"), [pattern, "*"])
    assert not rules.allow(b"work")
    assert not rules.allow(b"done")
    assert not rules.allow(b"gc:" + key)


@given(st.text(min_size=1, max_size=10).filter(lambda text: not set(text) & set("*?")))
def test_a_pattern_without_wildcards_is_one_key(name: str) -> None:
    rules = KeyRules((), [name])
    assert rules.allow(name.encode()) != name.startswith("gc:")
    assert not rules.allow(name.encode() + b"x")
