"""A real image registry, and a proxy before it that breaks pulls at a chosen place.

Both listen on 127.0.0.1, the only place where Docker trusts a registry that speaks plain HTTP.
"""

import http.client
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.support.processes import end_process, free_port, start_process, tail
from tests.support.waiting import wait_until

START_WITHIN_S = 20.0
PROGRAM = "docker-registry"

USERNAME = "grid"
PASSWORD = "open-sesame-5712"
HTPASSWD = f"{USERNAME}:$2b$05$UimBzVG7BXnSophCJa7O0OKnjEISN6M.vKhnB.rDYKSTOyGrz7J2e\n"
"""The bcrypt hash of PASSWORD; the registry takes no other kind of hash."""

LAYER_BYTES = 8192
"""A blob of at least this size is taken for a layer. The other blobs of our images, their
configurations, are far smaller."""


class Registry:
    """Runs from `start()` (or the `with`) to `close()`; its images are gone with it."""

    def __init__(self, *, with_password: bool = False) -> None:
        self.auth_config = {"username": USERNAME, "password": PASSWORD} if with_password else None
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="gridcore-registry-"))
        self._log = self._folder / "registry.log"
        self._process: subprocess.Popen[bytes] | None = None
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": f"{self._folder}/images"},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address},
        }
        if with_password:
            passwords = self._folder / "htpasswd"
            passwords.write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(passwords)}}
        self._config = self._folder / "config.yml"
        # JSON is YAML.
        self._config.write_text(json.dumps(config))

    @property
    def address(self) -> str:
        """What image names at this registry start with."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when the registry answers."""
        process = start_process([PROGRAM, "serve", str(self._config)], log=self._log)
        self._process = process
        try:
            wait_until(
                lambda: process.poll() is not None or self._answers(),
                within_s=START_WITHIN_S,
                what="the registry answers",
            )
            if process.returncode is not None:
                message = f"{PROGRAM} ended with code {process.returncode}:\n{tail(self._log)}"
                raise RuntimeError(message)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends it; after another `start()` it has the same address and images."""
        if self._process is not None:
            end_process(self._process)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.address, timeout=5.0)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in {200, 401}
        except OSError:
            return False
        finally:
            connection.close()

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
    """Why there can be no registry here."""
    if shutil.which(PROGRAM) is None:
        return f"no {PROGRAM} on PATH (tests/packages.sh installs it)"
    return None


Fault = Literal["cut", "missing", "stall"]


class FaultyRegistry:
    """A proxy before a registry: images are pushed there and pulled here.

    It behaves until told otherwise. Only layers are broken, so that a pull gets as far as showing
    progress. `requests` holds what was asked, as `(method, path)`.
    """

    def __init__(self, registry: Registry) -> None:
        self.requests: list[tuple[str, str]] = []
        self._fault: Fault | None = None
        self._faults_left = 0
        self._lock = threading.Lock()
        self._stalled = threading.Event()
        self._may_go_on = threading.Event()
        handler = type("Handler", (_ProxyHandler,), {"faulty": self, "target": registry.address})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def cut_layers(self, times: int = 1) -> None:
        """Closes the connection in the middle of the next layers that are asked for."""
        self._break("cut", times)

    def lose_layers(self, times: int = 1_000_000) -> None:
        """Answers 404, as a registry does whose storage lost a blob that a manifest names."""
        self._break("missing", times)

    def stall_layers(self, times: int = 1) -> None:
        """Sends half of a layer and then nothing, until `go_on()`."""
        self._may_go_on.clear()
        self._stalled.clear()
        self._break("stall", times)

    def wait_stalled(self, *, within_s: float = 20.0) -> None:
        """Returns when a pull hangs in the middle of a layer."""
        wait_until(self._stalled.is_set, within_s=within_s, what="a pull hangs")

    def go_on(self) -> None:
        """Lets the stalled pulls finish."""
        self._may_go_on.set()

    def behave(self) -> None:
        with self._lock:
            self._fault = None
        self.go_on()

    def pulls_of(self, kind: Literal["manifests", "blobs"], repository: str = "") -> int:
        """How often the contents of a manifest or of a blob were asked for."""
        return sum(
            method == "GET" and f"{repository}/{kind}/" in path for method, path in self.requests
        )

    def take_fault(self) -> Fault | None:
        with self._lock:
            if self._fault is None or self._faults_left == 0:
                return None
            self._faults_left -= 1
            return self._fault

    def hang(self) -> None:
        self._stalled.set()
        self._may_go_on.wait()

    def _break(self, fault: Fault, times: int) -> None:
        with self._lock:
            self._fault, self._faults_left = fault, times

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.go_on()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _ProxyHandler(BaseHTTPRequestHandler):
    faulty: FaultyRegistry
    target: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    def log_message(self, *_args: object) -> None:
        """Nothing: a test looks at `requests`."""

    def _forward(self) -> None:
        self.faulty.requests.append((self.command, self.path))
        connection = http.client.HTTPConnection(self.target, timeout=30.0)
        try:
            # All headers as they came: Docker sends several of the name Accept, and with its Host
            # the registry's links lead here.
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
            try:
                self._answer(response, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
        finally:
            connection.close()

    def _answer(self, response: http.client.HTTPResponse, body: bytes) -> None:
        is_layer = (
            response.status in {200, 206}
            and re.search(r"/blobs/sha256:\w+$", self.path)
            and len(body) >= LAYER_BYTES
        )
        fault = self.faulty.take_fault() if is_layer else None
        send: Callable[[bytes], object] = self.wfile.write
        if fault == "missing":
            error = {"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}
            body = json.dumps({"errors": [error]}).encode()
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            send(body)
            return
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in {"connection", "date", "server", "transfer-encoding"}:
                self.send_header(name, value)
        self.end_headers()
        half = len(body) // 2
        if fault is None:
            send(body)
            return
        send(body[:half])
        if fault == "cut":
            self.close_connection = True
        else:
            self.faulty.hang()
            send(body[half:])
