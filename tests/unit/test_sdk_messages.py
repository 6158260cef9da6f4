"""What travels between driver and runners arrives as it was sent, and nothing else is taken."""

from __future__ import annotations

import json
import marshal
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcore.sdk.grid.messages import (
    ACTOR,
    CALL,
    PYTHON,
    Item,
    Part,
    letter,
    order,
    read_letter,
    read_order,
)

wires = st.one_of(st.binary(max_size=20), st.tuples(st.integers(0, 9), st.integers(0, 2**40)))
tickets = st.tuples(st.text(max_size=9), st.integers(0, 2**40))
items = st.builds(
    Item,
    job=st.text(max_size=16),
    kind=st.sampled_from((CALL, ACTOR)),
    number=st.integers(-(2**63), 2**63),
    attempt=st.integers(0, 99),
    python=st.just(PYTHON),
    function=st.binary(max_size=20),
    name=st.text(max_size=9),
    arguments=wires,
    places=st.lists(st.one_of(st.integers(0, 9), st.text(max_size=4)), max_size=3).map(tuple),
    values=st.lists(wires, max_size=3).map(tuple),
    returns=st.integers(-5, 5),
    about=st.none() | st.tuples(st.integers(0, 9), st.text(max_size=5)),
    timeout=st.none() | st.floats(0, 1e9),
    memory=st.integers(0, 2**50),
    cpus=st.floats(0, 1),
    tickets=st.lists(tickets, max_size=3).map(tuple),
)
parts = st.lists(
    st.builds(
        Part,
        worker=st.integers(0, 2**48),
        messages=st.lists(st.tuples(st.sampled_from("ghd"), st.integers(), wires), max_size=3),
        tickets=st.lists(tickets, max_size=3),
    ),
    max_size=4,
)

CALL_OF_OURS = Item(job="j", kind=CALL, number=7, attempt=2, python=PYTHON, timeout=1.5)


@given(items)
def test_an_item_arrives_as_it_was_pushed(item: Item) -> None:
    assert Item.decoded(item.encoded()) == item


@given(st.text(max_size=9), st.integers(1, 2**40), parts)
def test_a_letter_arrives_with_its_run_its_number_and_its_parts(
    run: str, number: int, sent: list[Part]
) -> None:
    assert read_letter(letter(run, number, [part.encoded() for part in sent])) == (
        run,
        number,
        sent,
    )


@given(st.integers(1, 2**40), parts)
def test_an_order_arrives_with_its_number_and_its_parts(number: int, sent: list[Part]) -> None:
    assert read_order(order(number, [part.encoded() for part in sent])) == (number, sent)


@pytest.mark.parametrize(
    "pushed",
    [b"", b"work", json.dumps({"id": 1}).encode(), pickle.dumps(1), marshal.dumps(("j", "c", 1))],
)
def test_what_somebody_else_has_pushed_is_no_call(pushed: bytes) -> None:
    with pytest.raises(ValueError, match="no call of the SDK"):
        Item.decoded(pushed)


def test_wherever_a_call_is_cut_off_it_cannot_be_read() -> None:
    data = CALL_OF_OURS.encoded()
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"no call|cannot be read"):
            Item.decoded(data[:length])


@pytest.mark.parametrize("content", [None, 7, (), ("j", "c"), tuple(range(40))])
def test_a_call_of_another_shape_cannot_be_read(content: Any) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        Item.decoded(CALL_OF_OURS.encoded()[:4] + marshal.dumps(content))
