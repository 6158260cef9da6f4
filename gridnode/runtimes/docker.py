"""Containers on a Docker engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gridcore.backoff import full_jitter_s
from gridcore.logs import EventLog
from gridcore.wire import ImagePull, Isolation, NetworkName, RuntimeName, TaskConfig
from gridnode.ending import Ended
from gridnode.runtimes import (
    LOG_LINES,
    CannotStart,
    ImageUnavailable,
    Listening,
    RunOrder,
    RuntimeUnavailable,
)
from gridnode.runtimes.docker_engine import (
    ContainerSpec,
    Engine,
    EngineInfo,
    EngineRefused,
    EngineUnavailable,
    ExitStream,
    NotThere,
)
from gridnode.runtimes.docker_host import NoEngine
from gridnode.runtimes.image_pulls import get_image
from gridnode.runtimes.isolation import Facts, Obstacle, look_around
from gridnode.runtimes.slot_networks import (
    DEFAULT_BRIDGE,
    HOLDER_LABELS,
    HOST_ALIAS,
    HOST_GATEWAY,
    SlotNetworks,
)
from gridnode.watched import Watched

LABEL = "io.gridcore."

PIDS = 512
"""Enough for one core's work; a fork bomb ends here."""

NO_NAME_SERVER = ("127.0.0.1",)
"""A container's own loopback. On an internal bridge the engine would else ask this machine's name
server on behalf of a container, and names can carry anything out."""

PING_EVERY_S = 20.0

ENDING_CALL_S = 20.0
"""A stop must not wait for an engine that is stuck: what is left is found at the next start."""

SIGNAL_SETTLES_S = 1.5
"""An engine that shuts down ends its containers first, and then falls silent within a moment."""

LONGEST_RECONNECT_PAUSE_S = 10.0

log = EventLog("gridnode.docker")


class DockerRuntime:
    name: RuntimeName = "docker"
    host_alias: str | None = HOST_ALIAS

    def __init__(
        self,
        find_engine: Callable[[], Engine],
        *,
        node_id: str,
        platform: str,
        memory_mb: int,
        look_around: Callable[[str, EngineInfo], Facts] = look_around,
    ) -> None:
        self._find_engine = find_engine
        self._labels = {LABEL + "node": node_id}
        self._networks = SlotNetworks(
            f"gridcore-{node_id}",
            self._labels,
            look_around=look_around,
            on_obstacle=_tell_obstacle,
        )
        self._platform = platform
        self._memory_bytes = memory_mb * 1024 * 1024
        self._engine: Engine | None = None
        self._info: EngineInfo | None = None
        self._image_of: dict[str, str] = {}
        self._was_away = False
        self._runs: dict[str, DockerRun] = {}
        self.problem: Watched[str | None] = Watched("Docker has not been looked for yet")

    async def run(self) -> None:
        attempt = 0
        while True:
            try:
                await self._watch_engine()
                cause = "Docker has gone away; the node waits for it"
                attempt = 0
            except NoEngine as error:
                cause = f'{error}; or, without containers, set runtime = "process" in gridnode.toml'
            except (RuntimeUnavailable, EngineRefused) as error:
                # An engine that is starting refuses what it will do in a moment.
                cause = str(error)
            self._was_away = True
            if self.problem.value != cause:
                log.warning("docker_unavailable", error=cause)
            self.problem.set(cause)
            await asyncio.sleep(full_jitter_s(attempt, most_s=LONGEST_RECONNECT_PAUSE_S))
            attempt += 1

    async def wait_available(self) -> None:
        await self.problem.wait_until(lambda problem: problem is None)

    async def prepare(self, task: TaskConfig, on_progress: Callable[[ImagePull], None]) -> None:
        if not task.image:
            raise CannotStart(
                f"preparing task {task.task_name!r}",
                cause="it has no image for this node",
                next_step='Give the task an image, or let nodes with runtime = "process" do it',
            )
        try:
            self._image_of[task.image] = await get_image(
                self._connected(), task.image, self._platform, on_progress
            )
        except EngineRefused as error:
            raise ImageUnavailable(
                f"getting image {task.image}", cause=error.cause, next_step=error.next_step
            ) from error

    async def listen(self, slot: int, network: NetworkName) -> Listening:
        engine, info = self._connected(), self._info
        assert info is not None
        return await self._networks.listen(engine, info, slot, network)

    async def stop_listening(self, slot: int) -> None:
        await self._networks.stop_listening(self._connected_or_none(), slot)

    async def start(self, order: RunOrder) -> DockerRun:
        assert order.image is not None, "prepare() comes first"
        engine, info = self._connected(), self._info
        assert info is not None
        run = None
        try:
            container = await self._create(engine, self._spec(order, info), order)
            run = self._runs[container] = DockerRun(self, engine, container)
            await engine.start(container)
        except (EngineRefused, ImageUnavailable) as error:
            if run:
                await run.remove()
            if await self._has_lost_its_network(engine, order):
                raise RuntimeUnavailable(
                    f"starting container {order.name}",
                    cause=f"the network of its slot is gone ({error.cause})",
                    next_step="The node tries again, with a new one",
                ) from error
            raise CannotStart(
                f"starting container {order.name}", cause=error.cause, next_step=error.next_step
            ) from error
        except (RuntimeUnavailable, asyncio.CancelledError):
            if run:
                await run.remove()
            raise
        return run

    async def remove_leftovers(self) -> int:
        engine = self._connected()
        try:
            leftovers = await engine.containers(self._labels)
            holders = await engine.containers(self._labels | HOLDER_LABELS)
        except EngineRefused as error:
            log.warning("cleaning_failed", error=error)
            return 0
        # Podman keeps a holder for as long as there is a run in its network.
        for container in sorted(leftovers, key=lambda found: found in holders):
            try:
                await engine.remove(container)
            except NotThere:
                pass
            except EngineRefused as error:  # it is being removed already, or its disk is busy
                log.warning("remove_failed", container=container[:12], error=error)
        await self._networks.remove_leftovers(engine)
        return len(leftovers.keys() - holders.keys())

    async def aclose(self) -> None:
        await self._networks.aclose(self._connected_or_none())
        if self._engine:
            await self._engine.aclose()

    def forget(self, container: str) -> None:
        self._runs.pop(container, None)

    def _spec(self, order: RunOrder, info: EngineInfo) -> ContainerSpec:
        assert order.image is not None
        place = order.listening
        reaches_host_by_alias = place is None or place.host == HOST_ALIAS
        is_on_internal_bridge = place is not None and place.isolation == "internal_bridge"
        return ContainerSpec(
            name=order.name,
            # By id: the name may be given to another image while the task runs.
            image=self._image_of.get(order.image, order.image),
            command=order.command,
            environment=order.environment,
            labels=self._labels | {LABEL + "task": order.task, LABEL + "slot": str(order.slot)},
            core=order.core if info.can_pin else None,
            memory_bytes=self._memory_bytes if info.can_limit_memory else None,
            pids=PIDS if info.can_limit_pids else None,
            network=place.network if place else DEFAULT_BRIDGE,
            hosts=HOST_GATEWAY if reaches_host_by_alias else {},
            name_servers=NO_NAME_SERVER if is_on_internal_bridge else (),
        )

    async def _create(self, engine: Engine, spec: ContainerSpec, order: RunOrder) -> str:
        assert order.image is not None
        try:
            return await engine.create_anew(spec)
        except NotThere:
            if await self._has_lost_its_network(engine, order):
                raise
        # Somebody has tidied up: the image is gone, and the task still runs.
        image = await get_image(engine, order.image, self._platform, lambda _: None)
        self._image_of[order.image] = image
        return await engine.create_anew(replace(spec, image=image))

    async def _has_lost_its_network(self, engine: Engine, order: RunOrder) -> bool:
        return order.listening is not None and not await self._networks.holds(
            engine, order.listening
        )

    async def _watch_engine(self) -> None:
        """Returns when a connection that worked has ended."""
        engine = self._engine = self._engine or self._find_engine()
        self._info = await engine.connect()
        exits = await engine.exits(self._labels)
        pinging = asyncio.create_task(self._ping_until_silent(engine, exits))
        try:
            await self._look_at_all(engine)
            await self._networks.look_at_all(engine)
            if self._was_away:
                log.info("docker_back")
            self.problem.set(None)
            async for container in exits:
                if container in self._runs:
                    self._runs[container].has_ended()
                else:
                    self._networks.has_ended(container)
        finally:
            pinging.cancel()
            exits.close()

    async def _look_at_all(self, engine: Engine) -> None:
        """Finds the runs that ended while nobody listened: the engine ended those."""
        for container, run in list(self._runs.items()):
            try:
                state = await engine.inspect(container)
            except NotThere:
                run.was_ended_by_engine()
            else:
                if not state.is_running:
                    run.was_ended_by_engine()

    async def _ping_until_silent(self, engine: Engine, exits: ExitStream) -> None:
        # A frozen engine keeps the event stream open, and says nothing.
        try:
            while True:
                await asyncio.sleep(PING_EVERY_S)
                await engine.ping()
        except (RuntimeUnavailable, EngineRefused):
            exits.close()

    def _connected(self) -> Engine:
        if self._engine is None or self.problem.value is not None:
            raise EngineUnavailable(
                "using Docker",
                cause=self.problem.value or "not connected yet",
                next_step="The node goes on when it is back",
            )
        return self._engine

    def _connected_or_none(self) -> Engine | None:
        return self._engine if self.problem.value is None else None


def _tell_obstacle(obstacle: Obstacle, isolation: Isolation) -> None:
    log.warning(
        "isolation_reduced", isolation=isolation, reason=obstacle.why, remedy=obstacle.remedy
    )


class DockerRun:
    """One container."""

    def __init__(self, runtime: DockerRuntime, engine: Engine, container: str) -> None:
        self._runtime = runtime
        self._engine = engine
        self._container = container
        self._ended = asyncio.Event()
        self._by_engine = False
        self._by_us = False

    def has_ended(self) -> None:
        self._ended.set()

    def was_ended_by_engine(self) -> None:
        self._by_engine = True
        self._ended.set()

    async def wait(self) -> Ended:
        await self._ended.wait()
        try:
            state = await self._engine.inspect(self._container)
            if state.exit_code == 0:
                return Ended(0, 0.0, was_ours=self._by_engine)
            log_lines = await self._engine.last_lines(self._container, LOG_LINES)
        except (RuntimeUnavailable, EngineRefused):
            return Ended(None, 0.0, was_ours=True)
        ended_by_signal = (state.exit_code or 0) > 128 and not state.out_of_memory
        if ended_by_signal and not self._by_engine and not self._by_us:
            self._by_engine = await self._engine_goes_away()
        return Ended(
            state.exit_code,
            0.0,
            out_of_memory=state.out_of_memory,
            log_lines=tuple(log_lines),
            was_ours=self._by_engine,
        )

    async def terminate(self) -> None:
        self._by_us = True
        await self._signal("SIGTERM")

    async def kill(self) -> None:
        await self._signal("SIGKILL")

    async def remove(self) -> None:
        try:
            async with asyncio.timeout(ENDING_CALL_S):
                await self._engine.remove(self._container)
        except NotThere:
            pass
        except (RuntimeUnavailable, EngineRefused, TimeoutError) as error:
            # The next start in this slot, or of this agent, finds it by name or label.
            log.warning("remove_failed", container=self._container[:12], error=error)
        self._runtime.forget(self._container)

    async def _signal(self, name: str) -> None:
        try:
            async with asyncio.timeout(ENDING_CALL_S):
                await self._engine.kill(self._container, name)
        except EngineRefused:
            pass  # it has ended by itself
        except (RuntimeUnavailable, TimeoutError) as error:
            log.warning("signal_failed", container=self._container[:12], error=error)

    async def _engine_goes_away(self) -> bool:
        try:
            async with asyncio.timeout(SIGNAL_SETTLES_S):
                await self._runtime.problem.wait_until(lambda problem: problem is not None)
        except TimeoutError:
            return False
        return True
