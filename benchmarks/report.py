"""The machine, the versions, and a table of figures with the aim beside them."""

from __future__ import annotations

import io
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import docker
import psutil
import redis

from gridcore import __version__

LIBRARIES = ("uvicorn", "fastapi", "pydantic", "redis", "hiredis", "uvloop", "docker")
LINES_SHOWN = 200

_FIGURES = sys.stdout


def say(line: str = "") -> None:
    print(line, file=_FIGURES, flush=True)


@contextmanager
def only_figures() -> Iterator[None]:
    """What else is printed, such as the end of each program's log, is shown only on failure."""
    with redirect_stdout(io.StringIO()) as printed:
        try:
            yield
        except BaseException:
            # Of a hundred programs the last ones say enough.
            sys.stderr.write("\n".join(printed.getvalue().splitlines()[-LINES_SHOWN:]) + "\n")
            raise


def print_machine(*, redis_url: str | None = None, engine: docker.APIClient | None = None) -> None:
    """Where and with what the figures below it were measured."""
    say(f"date      {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    say(
        f"machine   {os.cpu_count()} cores, {_cpu_model()},"
        f" {psutil.virtual_memory().total / 2**30:.0f} GB, Linux {platform.release()}"
    )
    said = [f"idm-gridcore {__version__} ({_commit()})", f"Python {platform.python_version()}"]
    if redis_url:
        with redis.Redis.from_url(redis_url) as client:
            said.append(_server_version(client.info("server")))
    if engine:
        said.append(f"Docker {engine.version()['Version']}")
    said += [f"{name} {version(name)}" for name in LIBRARIES]
    say(f"versions  {', '.join(said)}\n")


class Table:
    """In Markdown: what was measured at the left, its figures, and the aim if there is one."""

    def __init__(self, title: str, *columns: str) -> None:
        self._title = title
        self._rows: list[Sequence[str]] = [("", *columns, "aim")]

    def add(self, what: str, *figures: str, aim: str = "") -> None:
        self._rows.append((what, *figures, aim))

    def print(self) -> None:
        rows = self._rows
        if not any(aim for *_, aim in rows[1:]):
            rows = [row[:-1] for row in rows]
        widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
        say(f"{self._title}\n")
        for number, (first, *others) in enumerate(rows):
            cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
            say(f"| {' | '.join([first.ljust(widths[0]), *cells])} |")
            if number == 0:
                rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
                say(f"| {' | '.join(rules)} |")
        say()


SPREAD = ("min", "median", "max")


def spread(values: Sequence[float], digits: int = 0) -> tuple[str, str, str]:
    """The cells for the columns of SPREAD."""
    figures = (min(values), statistics.median(values), max(values))
    return tuple(f"{figure:,.{digits}f}" for figure in figures)  # type: ignore[return-value]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _cpu_model() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _server_version(info: dict[str, str]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "no commit"
