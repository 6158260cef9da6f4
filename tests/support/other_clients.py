"""The Redis clients of other people, as tests/packages.sh has left them, and plain programs that
use them (in tests/support/clients)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.gateway import OpenRun
from tests.support.processes import end_process, start_process, tail

CACHE = Path(
    os.environ.get("GRIDCORE_TEST_CACHE") or Path(__file__).parents[2] / ".cache" / "tests"
)
PROGRAMS = Path(__file__).parent / "clients"

WITHIN_S = 60.0


class ClientMissing(Exception):
    """Its text says which, and how to get it."""


def redis_py(major: int, program: str = "redis_py.py") -> list[str]:
    """The command that runs a program in this version of redis-py."""
    return [_there(f"redis-py-{major}", "bin/python"), "-W", "error", str(PROGRAMS / program)]


def node(program: str, package: str) -> list[str]:
    runtime = _there("node", "bin/node")
    return [runtime, str(PROGRAMS / program), _there("npm", f"node_modules/{package}")]


def shell(program: str) -> list[str]:
    if program == "redis_cli.sh" and shutil.which("redis-cli") is None:
        raise ClientMissing("no redis-cli on PATH (tests/packages.sh installs it)")
    return ["sh", str(PROGRAMS / program)]


def netcat() -> str:
    """Debian's and that of most small images: BusyBox'."""
    busybox = CACHE / "busybox-amd64"
    if not busybox.exists():
        raise ClientMissing(f"no {busybox} (tests/packages.sh fetches it)")
    return f"{busybox} nc"


class PlainProgram:
    """What runs in a container, without one; `arguments` follow the command."""

    def __init__(self, command: list[str], *arguments: object, run: OpenRun, log: Path) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "INPUT_REDIS_URL": run.url,
            "OUTPUT_REDIS_URL": run.url,
            "INPUT_QUEUE": run.access.desk.rules.input_queue,
            "OUTPUT_QUEUE": run.access.desk.rules.output_queue,
        }
        if "nc.sh" in command[-1]:
            environment["NC"] = netcat()
        settings = [f"{name}={value}" for name, value in environment.items()]
        self._log = log
        self._process = start_process(
            ["env", "-i", *settings, *command, *map(str, arguments)], log=log
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def exit_code(self) -> int:
        """When it has ended; what it has written is shown if that is not 0."""
        try:
            code = self._process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            end_process(self._process)
            code = -1
        if code:
            print(tail(self._log, lines=60))
        return code


def _there(folder: str, path: str) -> str:
    found = CACHE / "clients" / folder / path
    if not found.exists():
        raise ClientMissing(f"no {found} (tests/packages.sh installs it)")
    return str(found)
