"""What goes into a commit."""

from __future__ import annotations

import pytest

from gridcore.lease_queue.queue import Push, Transaction
from gridnode.gateway.outbox import COMMIT_ARGUMENTS_AT_ONCE, COMMIT_BYTES_AT_ONCE, Outbox

REDIS_6_TAKES = 1_048_576
"""Arguments of a command."""


def done(token: str, *values: bytes, pushed_alone: bool = False) -> Transaction:
    if pushed_alone:
        return Transaction([token], [Push("L", [value]) for value in values])
    return Transaction([token], [Push("L", list(values))])


def commits(outbox: Outbox) -> list[list[Transaction]]:
    found = []
    while commit := outbox.next_commit():
        found.append(commit.transactions)
        outbox.was_answered()
    return found


def arguments(transactions: list[Transaction]) -> int:
    """As `LeaseQueue.commit` sends them."""
    return sum(
        2 + len(tokens) + sum(2 + len(push.values) for push in results)
        for tokens, results in transactions
    )


def test_all_leaves_in_the_order_in_which_it_came() -> None:
    outbox = Outbox("p-")
    transactions = [done(f"t{number}", b"result") for number in range(5_000)]
    outbox.add(transactions)

    left = commits(outbox)

    assert [one for commit in left for one in commit] == transactions
    assert len(left) > 1
    assert outbox.is_empty


def test_it_tells_whether_somebody_waits_for_what_has_not_left() -> None:
    outbox = Outbox("p-")
    told = []
    for then in (None, lambda _: None):
        outbox.add([done("t", b"1")], then)
        told.append(outbox.is_awaited)
    outbox.next_commit()
    assert [*told, outbox.is_awaited] == [False, True, False]


@pytest.mark.parametrize("pushed_alone", [False, True])
def test_a_commit_has_no_more_arguments_than_redis_6_takes(pushed_alone: bool) -> None:
    """Empty results are many before they are large."""
    outbox = Outbox("p-")
    values = [b""] * 20_000
    outbox.add([done(f"t{number}", *values, pushed_alone=pushed_alone) for number in range(60)])

    for commit in commits(outbox):
        last = arguments(commit[-1:])
        assert arguments(commit) - last < COMMIT_ARGUMENTS_AT_ONCE
        assert arguments(commit) < REDIS_6_TAKES


def test_a_commit_stops_at_its_bytes_but_takes_a_large_result_whole() -> None:
    outbox = Outbox("p-")
    large = bytes(3 * COMMIT_BYTES_AT_ONCE)
    outbox.add([done("a", large), done("b", b"small"), done("c", large)])

    assert [[t.tokens for t in commit] for commit in commits(outbox)] == [[["a"]], [["b"], ["c"]]]
