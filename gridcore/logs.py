"""One line an event: when, how bad, who, what, and the fields that matter.

    2026-11-20T19:07:12.345Z INFO  computehub node_registered node=n-1f2e3d platform=linux/arm64

An ERROR means that a person has to do something.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import TextIO

_BARE = re.compile(r"[\w./:@*+,\-\[\]]+")


def _shown(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if _BARE.fullmatch(text):
        return text
    # What others wrote must not move the cursor, end the line or forge a field.
    safe = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)
    return f'"{"".join(escaped)}"'


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = (
            f"{when}.{int(record.msecs):03d}Z {record.levelname:<7} {record.name}"
            f" {record.getMessage()}"
        )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class EventLog:
    """Writes events with fields through the standard library's logging."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            words = [event, *(f"{key}={_shown(value)}" for key, value in fields.items())]
            self._logger.log(level, "%s", " ".join(words))


def setup(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Sends all logging of this process to `stream` (standard error), a line an event."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "urllib3", "docker", "asyncio", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
