"""Starts a hub and a node as child processes, talks to the hub, stops both in order."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gridcore.config_file import ENVIRONMENT_VARIABLE, write_new
from gridcore.errors import GridCoreError

START_WITHIN_S = 60.0
STOP_WITHIN_S = 60.0
CALL_TIMEOUT_S = 10.0
LOOK_EVERY_S = 0.1

_PR_SET_PDEATHSIG = 1


_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Whatever http_proxy says: the hub is on this machine, and the token is not for a proxy."""


class LocalGridError(GridCoreError):
    """The grid on this machine did not start, or ended by itself."""


@dataclass(frozen=True)
class Engine:
    """What `gridnode engine` found: a Docker engine, or why there is none."""

    is_there: bool
    said: str

    @classmethod
    def look_for(cls) -> Engine:
        found = _run_ours("gridnode", "engine")
        said = (found.stdout if found.returncode == 0 else found.stderr).strip()
        return cls(found.returncode == 0, said.removeprefix("gridnode: "))


class LocalGrid:
    """Runs from `start()` (or the `with`) to `stop()`.

    What is needed to start it again as it was (token, node's id, the store) is in its folder.
    """

    def __init__(self, folder: Path, *, host: str, port: int, runtime: str) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.runtime = runtime
        self._host = host
        self.token = ""
        self._hub: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    def start(self) -> None:
        """Returns when the hub answers and the node is online."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_folder()
        self._check_port()
        self._write_hub_config()
        self._hub = self._launch("computehub")
        self._wait("the hub answers", lambda: self.call("GET", "/api/tasks") is not None)
        self._write_node_config()
        self._node = self._launch("gridnode")
        self._wait("the node is online", self._node_is_online)

    def stop(self) -> None:
        """The node first: its last containers and its goodbye need the hub."""
        # A second Ctrl-C would leave the rest of it running.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for process in (self._node, self._hub):
                if process is not None and process.poll() is None:
                    _end(process)
        finally:
            signal.signal(signal.SIGINT, before)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def check(self) -> None:
        """Raises LocalGridError, with the end of its log, if a part has ended by itself."""
        for name, process in (("computehub", self._hub), ("gridnode", self._node)):
            if process is not None and process.poll() is not None:
                log = self.log_path(name)
                lines = log.read_text("utf-8", "replace").splitlines()
                last = lines[-1] if lines else "it wrote nothing"
                raise LocalGridError(
                    f"running {name} on this machine",
                    cause=f"it ended with code {process.returncode}: {last}",
                    next_step=f"Its whole log is {log}",
                )

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call to the hub; None while it cannot be reached."""
        request = urllib.request.Request(  # noqa: S310  our own hub, by http
            self.url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with _DIRECTLY.open(request, timeout=CALL_TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise LocalGridError(
                f"{method} {path}",
                cause=f"the hub answered {error.code}: {error.read().decode(errors='replace')}",
                next_step=f"Its log is {self.log_path('computehub')}",
            ) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def redis_url(self) -> str:
        """Where the queues are, as programs on this machine reach it."""
        return _run_ours("computehub", "redis-url", folder=self.folder).stdout.strip()

    def log_path(self, program: str) -> Path:
        return self.folder / f"{program}.log"

    def _lock_folder(self) -> None:
        lock = os.open(self.folder / "grid.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise LocalGridError(
                f"starting a grid in {self.folder}",
                cause="a grid of this folder is up already",
                next_step="Stop that one with Ctrl-C, or start another one with another --port and"
                " --folder",
            ) from None
        self._lock = lock

    def _check_port(self) -> None:
        # Before anything is written: whoever answers there would be taken for our hub.
        try:
            socket.create_server((self._host, self.port)).close()
        except OSError as error:
            raise LocalGridError(
                f"listening on {self._host}:{self.port}",
                cause=str(error.strerror or error),
                next_step="Another program uses that port: choose another one with --port",
            ) from None

    def _write_hub_config(self) -> None:
        path = self.folder / "computehub.toml"
        if path.exists():
            self.token = str(tomllib.loads(path.read_text("utf-8"))["token"])
        else:
            self.token = secrets.token_urlsafe(24)
        # A port or host that is chosen anew each time is written anew; the token stays.
        write_new(
            path,
            f"# Written by gridcore for a grid on this machine.\n"
            f'bind = "{self._host}:{self.port}"\n'
            f'token = "{self.token}"\n'
            f'data_dir = "{self.folder / "store"}"\n',
        )

    def _write_node_config(self) -> None:
        path = self.folder / "gridnode.toml"
        known = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
        node_id = f'node_id = "{known["node_id"]}"\n' if "node_id" in known else ""
        write_new(
            path,
            f"# Written by gridcore for a grid on this machine.\n"
            f'server_url = "{self.url}"\n'
            f'token = "{self.token}"\n'
            f'runtime = "{self.runtime}"\n'
            f"heartbeat_interval = 5\n"
            f"{node_id}",
        )

    def _launch(self, program: str) -> subprocess.Popen[bytes]:
        with self.log_path(program).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", program],
                env=os.environ | {ENVIRONMENT_VARIABLE: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us: we stop them, one after the other.
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def _node_is_online(self) -> bool:
        return any(node["status"] == "Online" for node in self.call("GET", "/api/nodes") or [])

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise LocalGridError(
                    f"waiting until {what}",
                    cause=f"that did not come within {START_WITHIN_S:.0f} s",
                    next_step=f"Look into the logs in {self.folder}",
                )
            time.sleep(LOOK_EVERY_S)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run_ours(
    program: str, *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({ENVIRONMENT_VARIABLE: str(folder)} if folder else {})
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def make_python_image(tag: str, worker: Path, path_in_image: str) -> str | None:
    """Makes the image without a registry; None when that worked, else why it did not."""
    made = _run_ours(
        *("gridnode", "python-image", tag, "--package", "redis"),
        *("--file", f"{worker}:{path_in_image}", "--", "python3", path_in_image),
    )
    return None if made.returncode == 0 else made.stderr.strip().removeprefix("gridnode: ")


def _end_with_parent() -> None:
    """If this process is killed, its grid stops in order all the same."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
