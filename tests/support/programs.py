"""The real programs, started as their users start them, each in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.processes import END_WITHIN_S, free_port, start_process, tail
from tests.support.waiting import wait_until

TOKEN = "the-token-of-the-tests"
START_WITHIN_S = 30.0


NODES = Path(tempfile.gettempdir()) / f"gridcore-test-nodes-{os.getpid()}"
"""Temporary files of this process's nodes. A node that starts ends what a node of its id has left
there, and tests that run at the same time have nodes of the same ids."""


class Program:
    """One of our commands with its configuration folder and log; ended by `close()`."""

    module: str

    def __init__(self, config: str, *, environment: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"gridcore-test-{self.module}-"))
        self.config_path = self.folder / f"{self.module}.toml"
        self.config_path.write_text(config)
        self.log_path = self.folder / "log"
        self.environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start() comes first"
        return self._process

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        self.launch()

    def launch(self) -> None:
        """Starts it, and does not wait until it is of use."""
        self._process = start_process(
            ["env", *self._settings(), sys.executable, "-W", "error", "-m", self.module],
            log=self.log_path,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same program once, to its end, for what it prints."""
        return subprocess.run(
            ["env", *self._settings(), sys.executable, "-m", self.module, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _settings(self) -> list[str]:
        settings = {"IDM_GRIDCORE_CONFIG": str(self.folder)} | self.environment
        return [f"{name}={value}" for name, value in settings.items()]

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel does."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(END_WITHIN_S)

    def wait_ended(self, *, within_s: float) -> int:
        return self.process.wait(within_s)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def wait_logged(self, pattern: str, *, within_s: float = 20.0, times: int = 1) -> str:
        """The log from the first match on, when there are that many."""

        def found() -> list[re.Match[str]]:
            matches = list(re.finditer(pattern, self.log))
            return matches if len(matches) >= times else []

        try:
            matches = wait_until(found, within_s=within_s, what=f"{self.module} logs {pattern!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{tail(self.log_path, lines=40)}") from None
        return self.log[matches[0].start() :]

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        # pytest shows it if the test has failed.
        if self.log_path.exists():
            print(f"--- end of the log of {self.module} ---\n{tail(self.log_path, lines=60)}")
        shutil.rmtree(self.folder, ignore_errors=True)

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


class HubProgram(Program):
    module = "computehub"

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        port: int | None = None,
        node_grace: float = 10,
        outage_grace: float = 180,
        lease_time: float = 30,
    ) -> None:
        self.port = port or free_port()
        config = [
            f'bind = "127.0.0.1:{self.port}"',
            f'token = "{TOKEN}"',
            f"node_grace = {node_grace}",
            f"outage_grace = {outage_grace}",
            f"lease_time = {lease_time}",
        ]
        if redis_url:
            config.append(f'redis_url = "{redis_url}"')
        super().__init__("\n".join(config))
        if not redis_url:
            self.config_path.write_text(
                "\n".join([*config, f'data_dir = "{self.folder / "data"}"'])
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=70,
            trust_env=False,
        )

    def start(self) -> None:
        self.launch()
        wait_until(
            lambda: self._answers() or self.process.poll() is not None,
            within_s=START_WITHIN_S,
            what="the hub answers",
        )
        assert self.process.poll() is None, f"the hub has ended:\n{tail(self.log_path)}"

    def close(self) -> None:
        self.http.close()
        super().close()

    def get(self, path: str, **params: str | float) -> Any:
        return self.http.get(path, params=params).raise_for_status().json()

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        response = self.http.post(path, json=body)
        assert response.is_success, f"{path}: {response.status_code} {response.text}"
        return response.json()

    def submit(self, name: str, **details: Any) -> Any:
        return self.post("/api/tasks", {"name": name} | details)

    def submit_direct(self, name: str, **details: Any) -> Any:
        """A task whose containers talk to Redis themselves, so that a test sees what they do at
        once, and not when their items are done."""
        return self.submit(name, **{"delivery": "direct", **details})

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/nodes")
        return found

    def node(self, node_id: str) -> dict[str, Any]:
        return next(node for node in self.nodes() if node["id"] == node_id)

    def task(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/api/tasks/{name}")
        return found

    def _answers(self) -> bool:
        try:
            return self.http.get("/health").text == "OK"
        except httpx.TransportError:
            return False


class NodeProgram(Program):
    module = "gridnode"

    def __init__(
        self,
        hub_url: str,
        *,
        node_id: str | None = None,
        token: str = TOKEN,
        environment: dict[str, str] | None = None,
        **settings: str | float,
    ) -> None:
        settings = {"heartbeat_interval": 1, "stop_timeout": 5, "container_memory": 128} | settings
        if node_id:
            settings["node_id"] = node_id
        lines = [f'server_url = "{hub_url}"', f'token = "{token}"']
        lines += [
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
            for key, value in settings.items()
        ]
        NODES.mkdir(exist_ok=True)
        super().__init__(
            "\n".join(lines) + "\n", environment={"TMPDIR": str(NODES)} | (environment or {})
        )

    def saved_id(self) -> str:
        return wait_until(
            lambda: next(iter(re.findall(r'node_id = "(.+)"', self.config_path.read_text())), ""),
            within_s=START_WITHIN_S,
            what="the node saves the id that the hub gave it",
        )
