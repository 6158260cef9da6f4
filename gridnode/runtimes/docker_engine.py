"""The Docker Engine. Nothing else in the agent knows the Docker SDK.

The SDK blocks, so every call runs in a small pool of threads, and the two calls that last (events,
a pull) in a thread of their own. Its many errors become three:

    EngineUnavailable   no engine, or it does not answer
    NotThere            no such container or image
    EngineRefused       the engine said no, and what it said
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from gridcore.errors import GridCoreError
from gridcore.wire import ImagePull
from gridnode.runtimes import RuntimeUnavailable

# requests guesses the encoding of text that does not tell it, by 3 MB of tables. The engine speaks
# UTF-8; and of what is missing requests only warns.
sys.modules.setdefault("charset_normalizer", None)  # type: ignore[arg-type]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import docker
    import docker.errors
    import docker.types
    import requests.exceptions
    import urllib3.exceptions

CALL_TIMEOUT_S = 60.0
"""Creating a container on a slow SD card takes long; an engine that takes longer is stuck."""

CALLS_AT_ONCE = 8
"""A guess: enough to start one container per core of a small machine together."""

PULLS_AT_ONCE = 32
LOG_BYTES = "1m"

_T = TypeVar("_T")


class EngineUnavailable(RuntimeUnavailable):
    """No engine, or it does not answer."""


class EngineRefused(GridCoreError):
    """The engine said no."""


class NotThere(EngineRefused):
    """No such container or image."""


@dataclass(frozen=True)
class EngineInfo:
    version: str
    architecture: str
    can_pin: bool
    can_limit_memory: bool
    can_limit_swap: bool
    can_limit_pids: bool
    data_folder: str
    name: str
    kernel: str = ""
    is_rootless: bool = False


@dataclass(frozen=True)
class ContainerSpec:
    name: str
    image: str
    command: list[str] | None
    environment: dict[str, str] = field(repr=False)
    labels: dict[str, str]
    core: int | None
    memory_bytes: int | None
    pids: int | None
    network: str = "bridge"
    """Also the name of another network, "none", or "container:" and the id of one to share with."""
    hostname: str | None = None
    hosts: dict[str, str] = field(default_factory=dict)
    """Further names that its programs know, and their addresses."""
    name_servers: tuple[str, ...] = ()
    """Instead of the engine's."""
    user: str | None = None
    is_bare: bool = False
    """Nothing around its program: no init, no log, and a disk that it cannot write to."""


@dataclass(frozen=True)
class ContainerState:
    is_running: bool
    exit_code: int | None
    out_of_memory: bool
    error: str
    pid: int = 0
    """In the engine's namespace of processes; 0 if it does not run."""


@dataclass(frozen=True)
class NetworkFacts:
    id: str
    name: str
    gateway: str | None
    """The address of the engine's machine there."""


@dataclass(frozen=True)
class ImageFacts:
    id: str
    platform: str
    digests: tuple[str, ...]


class _Client(docker.APIClient):
    """The SDK's client, but its pull gets the time limit of every other call: it has none."""

    def _set_request_timeout(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        return kwargs


class ExitStream:
    """The ids of containers as they end. The iteration ends when the engine does."""

    def __init__(self, client: _Client, events: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._events = events
        self._loop = loop
        self._ids: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="docker-events", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while (container := await self._ids.get()) is not None:
            yield container

    def close(self) -> None:
        self._events.close()
        self._client.close()

    def _read(self) -> None:
        try:
            for event in self._events:
                self._put(str(event["Actor"]["ID"]))
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError):
            pass  # the same as an end: the caller connects again and looks at everything
        finally:
            self._put(None)

    def _put(self, container: str | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._ids.put_nowait, container)


class Engine:
    """A connection to one engine, made by `connect` and made anew after it was lost."""

    def __init__(self, address: str, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._address = address
        self._call_timeout_s = call_timeout_s
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="docker")
        # Of its own: a pull may last for hours, and one that was called off ends when it can.
        self._pulling = ThreadPoolExecutor(PULLS_AT_ONCE, thread_name_prefix="docker-pull")
        self._client: _Client | None = None

    @property
    def address(self) -> str:
        return self._address

    async def connect(self) -> EngineInfo:
        def call() -> EngineInfo:
            if self._client is not None:
                self._client.close()
            self._client = self._new_client(self._call_timeout_s)
            info = self._client.info()
            return EngineInfo(
                version=str(info.get("ServerVersion", "")),
                architecture=str(info.get("Architecture", "")),
                can_pin=bool(info.get("CPUSet")),
                can_limit_memory=bool(info.get("MemoryLimit")),
                can_limit_swap=bool(info.get("SwapLimit")),
                can_limit_pids=bool(info.get("PidsLimit")),
                data_folder=str(info.get("DockerRootDir", "")),
                name=str(info.get("OperatingSystem", "")),
                kernel=str(info.get("KernelVersion", "")),
                # As Docker says it, and as Podman does.
                is_rootless="name=rootless" in (info.get("SecurityOptions") or [])
                or bool(info.get("Rootless")),
            )

        return await self._in_thread("connecting", call)

    async def create(self, spec: ContainerSpec) -> str:
        """The new container's id. It does not run yet."""

        def call() -> str:
            client = self._connected()
            memory = spec.memory_bytes
            log = {"type": "json-file", "config": {"max-size": LOG_BYTES, "max-file": "2"}}
            host_config = client.create_host_config(
                network_mode=spec.network,
                extra_hosts=spec.hosts or None,
                dns=list(spec.name_servers) or None,
                cpuset_cpus=None if spec.core is None else str(spec.core),
                mem_limit=memory,
                memswap_limit=memory,
                pids_limit=spec.pids,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                init=not spec.is_bare,
                read_only=spec.is_bare,
                ipc_mode="private",
                log_config=docker.types.LogConfig(**({"type": "none"} if spec.is_bare else log)),
            )
            created = client.create_container(
                image=spec.image,
                command=spec.command,
                # A command replaces what the image would run, entrypoint and all.
                entrypoint=[] if spec.command else None,
                name=spec.name,
                hostname=spec.hostname,
                user=spec.user,
                environment=spec.environment,
                labels=spec.labels,
                host_config=host_config,
            )
            return str(created["Id"])

        return await self._in_thread(f"creating container {spec.name}", call)

    async def create_anew(self, spec: ContainerSpec) -> str:
        """`create`, in the place of what has that name; for names that are a slot's own."""
        try:
            return await self.create(spec)
        except EngineRefused as error:
            if "is already in use" not in error.cause:
                raise
        # An engine restart or an unanswered call has left it: it can only be ours.
        with suppress(NotThere):
            await self.remove(spec.name)
        return await self.create(spec)

    async def start(self, container: str) -> None:
        await self._in_thread(
            f"starting container {container[:12]}", lambda: self._connected().start(container)
        )

    async def kill(self, container: str, signal: str) -> None:
        await self._in_thread(
            f"sending {signal} to container {container[:12]}",
            lambda: self._connected().kill(container, signal),
        )

    async def remove(self, container: str) -> None:
        """Also a running one, and its anonymous volumes."""
        await self._in_thread(
            f"removing container {container[:12]}",
            lambda: self._connected().remove_container(container, v=True, force=True),
        )

    async def inspect(self, container: str) -> ContainerState:
        def call() -> ContainerState:
            state = self._connected().inspect_container(container)["State"]
            is_running = bool(state.get("Running"))
            return ContainerState(
                is_running=is_running,
                exit_code=None if is_running else int(state.get("ExitCode", -1)),
                out_of_memory=bool(state.get("OOMKilled")),
                error=str(state.get("Error") or ""),
                pid=int(state.get("Pid") or 0),
            )

        return await self._in_thread(f"looking at container {container[:12]}", call)

    async def last_lines(self, container: str, count: int) -> list[str]:
        def call() -> list[str]:
            output: bytes = self._connected().logs(container, tail=count)
            lines = output.decode("utf-8", "replace").rstrip("\n").split("\n")
            # A progress bar writes over its line: what was last on the screen is what counts.
            return [line.rstrip("\r").rpartition("\r")[2] for line in lines][-count:]

        return await self._in_thread(f"reading the log of {container[:12]}", call)

    async def containers(self, labels: dict[str, str]) -> dict[str, bool]:
        """Those with all these labels: id -> whether it runs."""

        def call() -> dict[str, bool]:
            filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
            found = self._connected().containers(all=True, filters=filters)
            return {str(c["Id"]): c.get("State") == "running" for c in found}

        return await self._in_thread("listing containers", call)

    async def create_network(
        self, name: str, labels: dict[str, str], options: dict[str, str]
    ) -> NetworkFacts:
        """An internal bridge: no way leads out of it but to the engine's own machine."""

        def call() -> NetworkFacts:
            client = self._connected()
            created = client.create_network(
                name,
                driver="bridge",
                options=options,
                internal=True,
                labels=labels,
                check_duplicate=True,
            )
            return _network_facts(client.inspect_network(created["Id"]))

        return await self._in_thread(f"creating network {name}", call)

    async def network(self, reference: str) -> NetworkFacts | None:
        """By name or id, or None."""

        def call() -> NetworkFacts:
            return _network_facts(self._connected().inspect_network(reference))

        try:
            return await self._in_thread(f"looking for network {reference}", call)
        except NotThere:
            return None

    async def networks(self, labels: dict[str, str]) -> list[str]:
        """The ids of those with all these labels."""

        def call() -> list[str]:
            filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
            return [str(n["Id"]) for n in self._connected().networks(filters=filters)]

        return await self._in_thread("listing networks", call)

    async def remove_network(self, network: str) -> None:
        await self._in_thread(
            f"removing network {network[:12]}", lambda: self._connected().remove_network(network)
        )

    async def image(self, reference: str) -> ImageFacts | None:
        """The local image, or None."""

        def call() -> ImageFacts:
            facts: dict[str, Any] = self._connected().inspect_image(reference)  # type: ignore[no-untyped-call]
            variant = f"/{facts['Variant']}" if facts.get("Variant") else ""
            return ImageFacts(
                id=str(facts["Id"]),
                platform=f"{facts.get('Os', 'linux')}/{facts['Architecture']}{variant}",
                digests=tuple(facts.get("RepoDigests") or ()),
            )

        try:
            return await self._in_thread(f"looking for image {reference}", call)
        except NotThere:
            return None

    async def load_image(self, archive: IO[bytes]) -> None:
        """Takes in the images of a `docker save` archive."""

        def call() -> None:
            stream = self._connected().load_image(archive)  # type: ignore[no-untyped-call]
            for message in stream:
                # Neither the SDK nor the status of the answer tells of a failure.
                failed = message.get("error") or message.get("message")
                if failed:
                    raise EngineRefused(
                        "loading an image",
                        cause=f"Docker refused ({failed})",
                        next_step="Check the archive, and the space on the engine's disk",
                    )

        await self._in_thread("loading an image", call)

    async def pull(
        self,
        reference: str,
        platform: str | None,
        on_progress: Callable[[ImagePull], None],
        *,
        no_progress_s: float,
    ) -> PullResult:
        """One attempt; ends with a result, never silently. Cancelling it ends the pull."""
        loop = asyncio.get_running_loop()

        def tell(progress: ImagePull) -> None:
            loop.call_soon_threadsafe(on_progress, progress)

        pull = _Pull(reference, platform, tell, no_progress_s)
        work = loop.run_in_executor(
            self._pulling, pull.run, lambda: self._new_client(no_progress_s)
        )
        try:
            with _explained(f"pulling {reference}"):
                return await asyncio.shield(work)
        except asyncio.CancelledError:
            pull.cancel()
            raise

    async def ping(self) -> None:
        await self._in_thread("asking the engine for a sign of life", self._ping)

    def _ping(self) -> None:
        self._connected().ping()

    async def exits(self, labels: dict[str, str]) -> ExitStream:
        """Containers with these labels as they end, from now on."""
        filters = {
            "type": "container",
            "event": ["die", "died"],  # as Docker says it, and as Podman wants it said
            "label": [f"{key}={value}" for key, value in labels.items()],
        }

        loop = asyncio.get_running_loop()

        def call() -> ExitStream:
            client = self._new_client(timeout_s=None)
            return ExitStream(client, client.events(decode=True, filters=filters), loop)

        return await self._in_thread("listening to the engine's events", call)

    async def aclose(self) -> None:
        if self._client is not None:
            self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pulling.shutdown(wait=False, cancel_futures=True)

    def _new_client(self, timeout_s: float | None) -> _Client:
        return _Client(
            base_url=self._address,
            version="auto",
            timeout=timeout_s,  # type: ignore[arg-type]  # the stubs know whole seconds only
            max_pool_size=CALLS_AT_ONCE,
        )

    def _connected(self) -> _Client:
        if self._client is None:
            raise _unavailable("using Docker", "not connected yet")
        return self._client

    async def _in_thread(self, what: str, call: Callable[[], _T]) -> _T:
        with _explained(what):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)


@dataclass(frozen=True)
class PullResult:
    error: str | None
    """What the engine said in the middle of its stream; None if all went well."""
    got_through: bool
    """The registry answered with the image's description, so it was there."""
    digest: str | None


class _Pull:
    """One pull, in a thread of its own."""

    def __init__(
        self,
        reference: str,
        platform: str | None,
        on_progress: Callable[[ImagePull], None],
        no_progress_s: float,
    ) -> None:
        self._reference = reference
        self._platform = platform
        self._on_progress = on_progress
        self._no_progress_s = no_progress_s
        self._cancelled = threading.Event()
        self._layers: dict[str, tuple[int, int]] = {}

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self, new_client: Callable[[], _Client]) -> PullResult:
        got_through, digest, error = False, None, None
        client = new_client()
        try:
            moved = time.monotonic()
            # Not images.pull(): that reads the stream without looking, and then takes whatever
            # image of that name is there.
            stream = client.pull(self._reference, stream=True, decode=True, platform=self._platform)
            for message in stream:
                if self._cancelled.is_set():
                    error = "it was called off"
                    break
                if "error" in message:
                    error = str(message.get("errorDetail", {}).get("message") or message["error"])
                status = str(message.get("status", ""))
                got_through = got_through or status.startswith(("Pulling from", "Pulling fs"))
                if status.startswith("Digest: "):
                    digest = status.removeprefix("Digest: ")
                if self._note(message, status):
                    moved = time.monotonic()
                elif time.monotonic() - moved > self._no_progress_s:
                    error = f"no progress for {self._no_progress_s:.0f} s"
                    break
            stream.close()
        except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            # The SDK reads the stream through urllib3 itself, and lets its errors through.
            error = f"no progress for {self._no_progress_s:.0f} s"
        except docker.errors.APIError as refused:
            error = refused.explanation or str(refused)
        finally:
            client.close()
        return PullResult(error, got_through, digest)

    def _note(self, message: dict[str, Any], status: str) -> bool:
        """True if this message shows progress."""
        detail = message.get("progressDetail") or {}
        layer = str(message.get("id", ""))
        if status == "Downloading" and "current" in detail:
            before = self._layers.get(layer, (0, 0))[0]
            self._layers[layer] = (int(detail["current"]), int(detail.get("total") or 0))
            self._on_progress(
                ImagePull(
                    image=self._reference,
                    downloaded_bytes=sum(current for current, _ in self._layers.values()),
                    total_bytes=sum(total for _, total in self._layers.values()),
                )
            )
            return int(detail["current"]) > before
        return not status.startswith(("Retrying", "Waiting"))


def _network_facts(network: dict[str, Any]) -> NetworkFacts:
    configs = (network.get("IPAM") or {}).get("Config") or []
    gateways = [str(c["Gateway"]).partition("/")[0] for c in configs if c.get("Gateway")]
    # An IPv6 range may come with it; its gateway is not the one that is asked for.
    ipv4 = [gateway for gateway in gateways if ":" not in gateway]
    return NetworkFacts(
        id=str(network["Id"]), name=str(network["Name"]), gateway=ipv4[0] if ipv4 else None
    )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns the SDK's errors, and those of the libraries below it, into ours."""
    try:
        yield
    except docker.errors.NotFound as error:
        raise NotThere(
            what, cause=error.explanation or str(error), next_step="It may be gone already"
        ) from error
    except docker.errors.APIError as error:
        raise EngineRefused(
            what,
            cause=f"Docker refused ({error.explanation or error})",
            next_step="'gridnode doctor' checks what this engine can do",
        ) from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
    ) as error:
        raise _unavailable(what, f"{type(error).__name__}: {error}") from error


def _unavailable(what: str, cause: str) -> EngineUnavailable:
    return EngineUnavailable(
        what,
        cause=f"the Docker engine does not answer ({cause})",
        next_step="The node goes on when it is back",
    )
