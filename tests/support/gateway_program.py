"""A gateway in a process of its own, so that what its peers cost it can be seen from outside.

with GatewayProgram(redis_server.url, slots=2) as program:
    one, other = program.runs
    ...
    assert program.peak_bytes - program.bytes_at_start < ...
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from gridcore import logs
from gridnode.gateway import server
from tests.support.gateway import Gateway
from tests.support.processes import end_process, tail
from tests.support.waiting import wait_until


class Place(NamedTuple):
    """Where the container of one slot would knock."""

    host: str
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://default:{self.password}@{self.host}:{self.port}/0"


class GatewayProgram:
    """From the `with` on it serves one open run in each slot."""

    def __init__(self, redis_url: str, *, slots: int = 2, login_within_s: float = 10.0) -> None:
        self.runs: list[Place] = []
        self.bytes_at_start = 0
        self._folder = tempfile.TemporaryDirectory(prefix="gridcore-gateway-")
        self._log = Path(self._folder.name) / "log"
        self._arguments = [redis_url, str(slots), str(login_within_s)]

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def peak_bytes(self) -> int:
        return self._memory("VmHWM")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_logged(self, pattern: str) -> None:
        wait_until(lambda: re.search(pattern, self.log), within_s=20, what=f"a line like {pattern}")

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.gateway_program", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, self.log
        self.runs = [Place(*run) for run in json.loads(answer)]
        self.bytes_at_start = self._memory("VmRSS")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            end_process(self._process)
        self._process.stdout.close()
        print(tail(self._log))
        self._folder.cleanup()

    def _memory(self, what: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        assert found
        return 1024 * int(found[1])


def main(redis_url: str, slots: str, login_within_s: str) -> None:
    logs.setup()
    server.LOGIN_WITHIN_S = float(login_within_s)
    with Gateway(redis_url, slots=int(slots)) as gateway:
        runs = [gateway.open_run(slot) for slot in range(int(slots))]
        print(json.dumps([(run.host, run.port, run.password) for run in runs]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
