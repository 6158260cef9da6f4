"""What a node remembers of its deliveries to another Redis."""

from __future__ import annotations

from gridcore.lease_queue.queue import Push
from gridnode.gateway.delivered import MAX_BYTES, REMEMBERED_S, Delivered


def deliver(delivered: Delivered, number: int, *, at_s: float = 0.0, size: int = 1) -> None:
    push = Push("L", [bytes(size)])
    delivered.add(at_s, f"me-{number}", [f"token {number}"], [push])


def numbers(delivered: Delivered, last: str | None) -> list[str]:
    return [delivery.name for delivery in delivered.later_than(last)]


def test_what_is_later_than_the_last_that_is_known_there_was_forgotten() -> None:
    delivered = Delivered("me-")
    for number in (8, 9, 10, 11):
        deliver(delivered, number)

    assert numbers(delivered, "me-9") == ["me-10", "me-11"]
    assert numbers(delivered, "me-11") == []


def test_if_none_is_known_there_all_are_forgotten() -> None:
    delivered = Delivered("me-")
    deliver(delivered, 1)
    deliver(delivered, 2)

    assert numbers(delivered, None) == ["me-1", "me-2"]
    assert numbers(delivered, "an-agent-before-7") == ["me-1", "me-2"]


def test_a_delivery_that_is_made_again_is_remembered_once() -> None:
    delivered = Delivered("me-")
    deliver(delivered, 1)
    deliver(delivered, 1)

    assert numbers(delivered, None) == ["me-1"]


def test_what_is_too_old_to_be_lost_is_forgotten_here_too() -> None:
    delivered = Delivered("me-")
    deliver(delivered, 1, at_s=0)
    deliver(delivered, 2, at_s=REMEMBERED_S)
    deliver(delivered, 3, at_s=REMEMBERED_S + 1)

    assert numbers(delivered, None) == ["me-2", "me-3"]
    assert delivered.tokens() == {"token 2", "token 3"}

    delivered.forget_before(2 * REMEMBERED_S + 2)
    assert delivered.is_empty


def test_of_very_many_results_the_oldest_are_dropped_but_not_whose_they_are() -> None:
    """The tokens say which leases are to be closed again, and are small."""
    delivered = Delivered("me-")
    for number in range(5):
        deliver(delivered, number, size=MAX_BYTES // 3)

    assert numbers(delivered, None) == ["me-3", "me-4"]
    assert len(delivered.tokens()) == 5
