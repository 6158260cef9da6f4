"""A real Docker engine for tests: the machine's own, else a private one.

A private engine is a containerd and a dockerd with all their files in one temporary folder and a
bridge of their own, so that it meets no other engine. They are two processes, as on any server:
when dockerd is killed its containers live on under containerd.

A run of the tests that is killed leaves such a folder behind with everything in it running. Its
name holds the process that owned it; the next run that needs a private engine clears it away.
"""

import contextlib
import ipaddress
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import docker
import psutil
import requests
from docker.errors import APIError, DockerException, NotFound

from tests.support.processes import end_process, start_process, tail
from tests.support.waiting import wait_until

LABEL = "io.gridcore.test"
RUN_LABEL = "io.gridcore.test.run"
LABELS = {LABEL: "1", RUN_LABEL: uuid.uuid4().hex}
"""Give these to whatever a test makes itself. The images here have them, and so each container of
such an image. On an engine that is not private, what has them is all that `close()` removes."""

START_WITHIN_S = 60.0
SOCKET = Path("/var/run/docker.sock")
FOLDER_PREFIX = "gridcore-docker-"
PROGRAMS = ("dockerd", "containerd", "runc", "iptables", "ip")


class EngineError(RuntimeError):
    """The private engine did not start; the text holds the end of its log."""


class DockerEngine:
    """Is up when the constructor returns, and needs `close()`.

    `stop`, `start`, `restart`, `kill` and `frozen` are for a private engine only. After `stop()` no
    container runs; after `kill()` all of them still do, and the next `start()` stops them, which
    takes 10 s if one ignores SIGTERM. An engine started with `live_restore` leaves them alone.
    A private engine fetches a layer that was cut again `download_retries` times, after 5 s, 10 s
    and so on, before the pull fails; Docker's own 5 take more than a minute, and 0 is not allowed.
    """

    def __init__(self, *, download_retries: int = 1) -> None:
        if reason := unavailable_reason():
            raise EngineError(reason)
        self._daemon: _PrivateDaemon | None = None
        if host := _reachable_host():
            self.host = host
        else:
            _clear_abandoned()
            self._daemon = _PrivateDaemon.create(download_retries)
            self.host = self._daemon.host
            try:
                self._daemon.start()
            except BaseException:
                self._daemon.clear_away()
                raise

    @property
    def is_private(self) -> bool:
        return self._daemon is not None

    def client(self, *, timeout_s: int = 60) -> docker.APIClient:
        """A new client, which the caller closes."""
        return docker.APIClient(base_url=self.host, version="auto", timeout=timeout_s)

    @property
    def gateway(self) -> str:
        """The address at which containers on the default bridge reach servers of this machine."""
        with self.client() as client:
            config = client.inspect_network("bridge")["IPAM"]["Config"][0]
        return str(config["Gateway"])

    @property
    def is_running(self) -> bool:
        return self._daemon is None or self._daemon.is_running

    @property
    def is_live_restoring(self) -> bool:
        return self._daemon is not None and self._daemon.live_restore

    def start(self, *, live_restore: bool = False) -> None:
        """Returns when the engine answers; does nothing if it runs."""
        self._private().start(live_restore=live_restore)

    def stop(self) -> None:
        self._private().stop()

    def restart(self, *, live_restore: bool = False) -> None:
        self.stop()
        self.start(live_restore=live_restore)

    def kill(self) -> None:
        """Ends dockerd as a crash does."""
        self._private().kill()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it dockerd takes connections and does not answer, as when it hangs."""
        process = self._private().process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._daemon is None:
            with self.client() as client:
                ours = {"label": f"{RUN_LABEL}={LABELS[RUN_LABEL]}"}
                _remove_containers_and_networks(client, ours)
                for image in client.images(filters=ours):
                    # An image that something foreign was built on stays.
                    with contextlib.suppress(APIError):
                        client.remove_image(image["Id"], force=True)
        else:
            self._daemon.close()

    def _private(self) -> "_PrivateDaemon":
        if self._daemon is None:
            message = f"the engine at {self.host} is not ours to stop"
            raise EngineError(message)
        return self._daemon


def unavailable_reason() -> str | None:
    """Why there can be no engine here, as far as that shows without starting one."""
    if _reachable_host():
        return None
    if "DOCKER_HOST" in os.environ:
        return f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}"
    why_not_private = None
    if platform.system() != "Linux":
        why_not_private = "one of the tests' own needs Linux"
    elif os.geteuid() != 0:
        why_not_private = "only root can start one for the tests"
    elif missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        why_not_private = f"not on PATH: {', '.join(missing)} (tests/packages.sh installs them)"
    return why_not_private and f"no Docker engine answers, and {why_not_private}"


def _reachable_host() -> str | None:
    host = os.environ.get("DOCKER_HOST") or (f"unix://{SOCKET}" if SOCKET.exists() else None)
    return host if host and _answers(host) else None


def _answers(host: str) -> bool:
    try:
        with docker.APIClient(base_url=host, version="auto", timeout=5) as client:
            return client.ping()
    except (DockerException, requests.RequestException):
        return False


def _remove_containers_and_networks(client: docker.APIClient, filters: dict[str, str]) -> None:
    for container in client.containers(all=True, filters=filters):
        with contextlib.suppress(NotFound):
            client.remove_container(container["Id"], force=True, v=True)
    for network in client.networks(filters={**filters, "type": "custom"}):
        client.remove_network(network["Id"])


@dataclass(frozen=True)
class _Marks:
    """What a private engine puts on the machine outside of its folder, and what was there."""

    bridge: str
    bridge_address: str
    forward_policy: str


class _PrivateDaemon:
    def __init__(self, folder: Path, marks: _Marks, *, download_retries: int) -> None:
        self.host = f"unix://{folder}/docker.sock"
        self._folder = folder
        self._marks = marks
        self.live_restore = False
        self._download_retries = download_retries
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, download_retries: int) -> "_PrivateDaemon":
        folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
        marks = _Marks(
            bridge=f"gctest{uuid.uuid4().hex[:8]}",
            bridge_address=_free_bridge_address(),
            forward_policy=_forward_policy(),
        )
        (folder / "marks.json").write_text(json.dumps(asdict(marks)))
        return cls(folder, marks, download_retries=download_retries)

    @classmethod
    def adopt(cls, folder: Path) -> "_PrivateDaemon":
        """One whose owner died; `close()` finishes what the owner could not."""
        marks = _Marks(**json.loads((folder / "marks.json").read_text()))
        daemon = cls(folder, marks, download_retries=1)
        daemon._end_leftover_processes()
        return daemon

    @property
    def is_running(self) -> bool:
        return self._dockerd is not None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._dockerd is None:
            message = "the private Docker engine does not run"
            raise EngineError(message)
        return self._dockerd

    def start(self, *, live_restore: bool = False) -> None:
        if self.is_running:
            return
        self.live_restore = live_restore
        self._make_bridge()
        if self._containerd is None:
            self._containerd = self._start_containerd()
        self._dockerd = self._start_dockerd()

    def stop(self) -> None:
        if self._dockerd is not None:
            end_process(self._dockerd)
            self._dockerd = None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._dockerd = None

    def close(self) -> None:
        """Removes all that was made with it, and then the engine itself."""
        try:
            # Only a running engine knows its networks and their interfaces.
            self.start()
            with docker.APIClient(base_url=self.host, version="auto") as client:
                _remove_containers_and_networks(client, {})
        finally:
            self.clear_away()

    def clear_away(self) -> None:
        self.stop()
        if self._containerd is not None:
            end_process(self._containerd)
            self._containerd = None
        self._end_leftover_processes()
        self._unmount()
        subprocess.run(
            ["ip", "link", "delete", self._marks.bridge], capture_output=True, check=False
        )
        self._restore_firewall()
        shutil.rmtree(self._folder)

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        folder = self._folder / "containerd"
        folder.mkdir(exist_ok=True)
        config = folder / "config.toml"
        config.write_text(
            "version = 2\n"
            f'root = "{folder}/root"\n'
            f'state = "{folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{folder}/containerd.sock"\n'
        )
        # A socket that the last one left would look like an answer.
        (folder / "containerd.sock").unlink(missing_ok=True)
        log = self._folder / "containerd.log"
        process = start_process(["containerd", "--config", str(config)], log=log)
        self._wait_ready("containerd", process, log, (folder / "containerd.sock").exists)
        return process

    def _start_dockerd(self) -> subprocess.Popen[bytes]:
        command = [
            "dockerd",
            f"--host={self.host}",
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/dockerd.pid",
            f"--containerd={self._folder}/containerd/containerd.sock",
            f"--bridge={self._marks.bridge}",
            "--storage-driver=overlay2",
            f"--max-download-attempts={self._download_retries}",
        ]
        if self.live_restore:
            command.append("--live-restore")
        # No settings of the machine's own engine: its file may contradict these flags.
        config = self._folder / "daemon.json"
        config.write_text("{}")
        command.append(f"--config-file={config}")
        # dockerd does not start beside the process named here, though that has ended, if init has
        # not reaped it.
        (self._folder / "dockerd.pid").unlink(missing_ok=True)
        log = self._folder / "dockerd.log"
        process = start_process(command, log=log)
        self._wait_ready("dockerd", process, log, lambda: _answers(self.host))
        return process

    def _wait_ready(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        log: Path,
        answers: Callable[[], bool],
    ) -> None:
        try:
            wait_until(
                lambda: process.poll() is not None or answers(),
                within_s=START_WITHIN_S,
                what=f"{name} answers",
            )
        except BaseException as exc:
            end_process(process)
            if isinstance(exc, AssertionError):
                message = f"{exc}; the end of its log:\n{tail(log)}"
                raise EngineError(message) from exc
            raise
        if process.returncode is not None:
            message = f"{name} ended with code {process.returncode}:\n{tail(log)}"
            raise EngineError(message)

    def _make_bridge(self) -> None:
        bridge = self._marks.bridge
        if bridge not in psutil.net_if_addrs():
            _run("ip", "link", "add", bridge, "type", "bridge")
            _run("ip", "address", "add", self._marks.bridge_address, "dev", bridge)
            _run("ip", "link", "set", bridge, "up")

    def _end_leftover_processes(self) -> None:
        """What a crash left: the shims, which name the folder, and the containers below them."""
        victims: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self._folder) in word for word in process.cmdline()):
                    victims += [process, *process.children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        wait_until(
            lambda: all(_has_ended(victim) for victim in victims),
            within_s=START_WITHIN_S,
            what=f"the processes of {self._folder} end",
        )

    def _unmount(self) -> None:
        points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for point in reversed(points):
            if point.startswith(f"{self._folder}/"):
                _run("umount", "--lazy", point)

    def _restore_firewall(self) -> None:
        """Takes dockerd's rules out, and leaves what others have changed in the meantime."""
        is_last = all(process.name() != "dockerd" for process in psutil.process_iter())
        rules = [
            self._marks.forward_policy if is_last and line.startswith(":FORWARD") else line
            for line in _run("iptables-save").splitlines()
            if self._marks.bridge not in line and not (is_last and "DOCKER" in line)
        ]
        _run("iptables-restore", input_text="\n".join(rules) + "\n")


def _clear_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        owner = int(folder.name.removeprefix(FOLDER_PREFIX).split("-")[0])
        if psutil.pid_exists(owner):
            continue
        if (folder / "marks.json").exists():
            _PrivateDaemon.adopt(folder).close()
        else:
            shutil.rmtree(folder)


def _forward_policy() -> str:
    lines = _run("iptables-save", "-t", "filter").splitlines()
    return next((line for line in lines if line.startswith(":FORWARD")), ":FORWARD ACCEPT [0:0]")


def _has_ended(process: psutil.Process) -> bool:
    try:
        # Init reaps what was ours in its own time.
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _free_bridge_address() -> str:
    network = free_network()
    return f"{network[1]}/{network.prefixlen}"


def free_network() -> ipaddress.IPv4Network:
    """One that no route of this machine leads to."""
    taken = [
        ipaddress.IPv4Network(route["dst"])
        for route in json.loads(_run("ip", "-json", "-4", "route"))
        if route["dst"] != "default"
    ]
    while True:
        middle = f"{random.randint(64, 254)}.{random.randint(0, 255)}"
        network = ipaddress.IPv4Network(f"10.{middle}.0/24")
        if not any(network.overlaps(other) for other in taken):
            return network


def _run(*command: str, input_text: str | None = None) -> str:
    done = subprocess.run(command, input=input_text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"{' '.join(command)}: {done.stderr.strip()}"
        raise EngineError(message)
    return done.stdout
