"""One line an event, whatever is in its fields."""

import io
import logging
import re
from collections.abc import Iterator

import pytest

from gridcore import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.setup("INFO", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_event_is_one_line_with_its_fields(stream: io.StringIO) -> None:
    logs.EventLog("computehub").info("node_lost", node="n-1", after_s=1.23456)

    line = stream.getvalue()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    computehub node_lost"
        r" node=n-1 after_s=1\.235\n",
        line,
    )


def test_what_others_wrote_cannot_forge_a_line_or_a_field(stream: io.StringIO) -> None:
    said = 'bad\n2026-01-01T00:00:00.000Z ERROR "x" node=other \\'
    logs.EventLog("gridnode").warning("run_failed", message=said)

    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r'message="bad\n2026-01-01T00:00:00.000Z ERROR \"x\" node=other \\"')


def test_an_empty_field_is_visible(stream: io.StringIO) -> None:
    logs.EventLog("gridnode").info("assigned", image="")
    assert stream.getvalue().endswith('image=""\n')
