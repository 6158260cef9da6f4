"""The arguments of commands, and the words for what is wrong with them."""

from __future__ import annotations

from gridcore.lease_queue.queue import Side
from gridnode.gateway import resp
from gridnode.gateway.resp import Command


class Refused(Exception):
    """Its text is the error reply."""


def timeout_of(text: bytes) -> float:
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = float("nan")
    if not timeout_s < 1e12 or timeout_s == float("-inf"):
        raise Refused("ERR timeout is not a float or out of range")
    if timeout_s < 0:
        raise Refused("ERR timeout is negative")
    return timeout_s


def count_of(text: bytes, *, least: int | None) -> int:
    try:
        number = int(text)
    except ValueError:
        raise Refused("ERR value is not an integer or out of range") from None
    if least is not None and number < least:
        positive = "positive" if least == 0 else "greater than 0"
        raise Refused(f"ERR value is out of range, must be {positive}")
    return number


def side_of(text: bytes) -> Side:
    word = text.upper()
    if word == b"LEFT":
        return "L"
    if word == b"RIGHT":
        return "R"
    raise Refused("ERR syntax error")


def bounds(start: int, stop: int, length: int) -> tuple[int, int]:
    """Redis' start and stop as those of a slice."""
    first = max(0, start + length if start < 0 else start)
    last = (stop + length if stop < 0 else stop) + 1
    return first, max(first, min(last, length))


def with_code(text: str) -> str:
    code = text.partition(" ")[0]
    return text if code.isalpha() and code.isupper() else f"ERR {text}"


def shown(word: bytes) -> str:
    return word[:64].decode("utf-8", "replace")


def wrong_number(command: Command) -> bytes:
    return resp.error(f"ERR wrong number of arguments for '{shown(command[0]).lower()}' command")
