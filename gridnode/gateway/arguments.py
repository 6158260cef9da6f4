"""The arguments of commands, and the words for what is wrong with them."""

from __future__ import annotations

from redis.exceptions import RedisError

from gridcore.lease_queue.queue import Side
from gridnode.gateway import resp
from gridnode.gateway.resp import Command

ARITY: dict[bytes, int] = {
    b"AUTH": -2,
    b"BLMOVE": 6,
    b"BLMPOP": -5,
    b"BLPOP": -3,
    b"BRPOP": -3,
    b"BRPOPLPUSH": 4,
    b"CLIENT": -2,
    b"COMMAND": -1,
    b"CONFIG": -2,
    b"DEL": -2,
    b"ECHO": 2,
    b"EXISTS": -2,
    b"HELLO": -1,
    b"INFO": -1,
    b"LINDEX": 3,
    b"LLEN": 2,
    b"LMOVE": 5,
    b"LMPOP": -4,
    b"LPOP": -2,
    b"LPUSH": -3,
    b"LPUSHX": -3,
    b"LRANGE": 4,
    b"LREM": 4,
    b"PING": -1,
    b"READONLY": 1,
    b"READWRITE": 1,
    b"RPOP": -2,
    b"RPOPLPUSH": 3,
    b"RPUSH": -3,
    b"RPUSHX": -3,
    b"SELECT": 2,
    b"TIME": 1,
    b"TYPE": 2,
    b"UNLINK": -2,
    b"UNWATCH": 1,
    b"XREAD": -4,
}
"""Words in a command, its name included, as COMMAND INFO has it; -2: at least two. Redis looks at
it when a command is queued in a MULTI, so that none of it is carried out if one of it is wrong."""


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


def with_code(error: object) -> str:
    """The text of an error of Redis, as it has sent it. redis-py takes away the codes that it
    knows, and keeps them apart."""
    text = str(error)
    if isinstance(error, RedisError) and error.status_code:
        return f"{error.status_code} {text}"
    code = text.partition(" ")[0]
    return text if code.isalpha() and code.isupper() else f"ERR {text}"


def shown(word: bytes) -> str:
    return word[:64].decode("utf-8", "replace")


def has_wrong_number(name: bytes, command: Command) -> bool:
    """As far as that can be told by its name."""
    arity = ARITY.get(name, -1)
    return len(command) != arity if arity > 0 else len(command) < -arity


def wrong_number(command: Command) -> bytes:
    return resp.error(f"ERR wrong number of arguments for '{shown(command[0]).lower()}' command")
