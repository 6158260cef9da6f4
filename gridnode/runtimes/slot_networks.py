"""Each slot's place in the network: where its gateway listens, and how its runs get there.

`isolation` says which ways there are. The best one that works here is taken:

    namespace   a container that does nothing, the holder, keeps the slot's network; the gateway
                listens at 127.0.0.1:6379 in it, and each run of the slot joins it. A holder whose
                task asked for network = "bridge" has Docker's bridge as well
    bridge      the gateway listens at the address of an internal bridge of this node, on a port of
                the slot's own; runs cannot reach each other there
    host        the gateway listens on this machine's loopback or outer address; runs have Docker's
                bridge

A place holds until its holder or its bridge is gone: somebody has removed it, or the engine was
restarted. The next `listen` then makes another one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from gridcore.logs import EventLog
from gridcore.wire import Isolation, NetworkName
from gridnode.runtimes import CannotStart, Listening, RuntimeUnavailable
from gridnode.runtimes.docker_engine import (
    ContainerSpec,
    Engine,
    EngineInfo,
    EngineRefused,
    NetworkFacts,
    NotThere,
)
from gridnode.runtimes.holder_image import PROGRAM, load_holder_image, tag_for
from gridnode.runtimes.isolation import (
    Facts,
    Obstacle,
    find_obstacle,
    has_bridges_here,
    reaches_host_by_alias,
)
from gridnode.runtimes.namespaces import BACKLOG, CannotEnter, listen_inside

HOST_ALIAS = "host.docker.internal"
HOST_GATEWAY = {HOST_ALIAS: "host-gateway"}

HOLDER_LABELS = {"io.gridcore.role": "network"}
"""Of containers that are no runs."""

INSIDE_HOST = "127.0.0.1"
INSIDE_PORT = 6379
"""Redis' own: a program that was told nothing finds its queues there."""

HOLDER_MEMORY_BYTES = 16 * 1024 * 1024
"""It uses a few kilobytes, but what starts it inside its limit uses some megabytes."""

HOLDER_PIDS = 16

REMOVED_WITHIN_S = 20.0

DEFAULT_BRIDGE = "bridge"
_BRIDGE_OPTIONS = {"com.docker.network.bridge.enable_icc": "false"}

_SOMEWHERE_ELSE = ("192.0.2.1", 9)
"""An address of no machine; asking for the way there sends nothing."""

log = EventLog("gridnode.docker")


@dataclass
class _Place:
    listening: Listening
    task_network: NetworkName
    holder: str | None = None
    bridge: str | None = None
    """This node's own."""
    is_lost: bool = False


class SlotNetworks:
    """`name` is what the names of its containers and networks begin with, unique on the engine.
    `on_obstacle` hears why runs cannot be kept from the network as they should; once."""

    def __init__(
        self,
        name: str,
        labels: dict[str, str],
        *,
        look_around: Callable[[str, EngineInfo], Facts],
        on_obstacle: Callable[[Obstacle, Isolation], None],
    ) -> None:
        self._name = name
        self._labels = labels
        self._look_around = look_around
        self._on_obstacle = on_obstacle
        self._places: dict[int, _Place] = {}
        self._bridge: str | None = None
        self._known: tuple[EngineInfo, Facts, Obstacle | None] | None = None
        self._told: Obstacle | None = None
        self._making_shared = asyncio.Lock()

    async def listen(
        self, engine: Engine, info: EngineInfo, slot: int, task_network: NetworkName
    ) -> Listening:
        """Raises RuntimeUnavailable and CannotStart."""
        place = self._places.get(slot)
        if place and place.task_network == task_network and not place.is_lost:
            return place.listening
        if place:
            del self._places[slot]
            place.listening.socket.close()
            await self._remove_holder(engine, place)
        try:
            place = await self._open(engine, info, slot, task_network)
        except EngineRefused as error:
            raise CannotStart(
                f"giving slot {slot} its network", cause=error.cause, next_step=error.next_step
            ) from error
        except OSError as error:
            raise CannotStart(
                f"opening the gateway's port for slot {slot}",
                cause=str(error),
                next_step="Look for what uses up this machine's ports or this user's files",
            ) from error
        self._places[slot] = place
        return place.listening

    async def stop_listening(self, engine: Engine | None, slot: int) -> None:
        place = self._places.pop(slot, None)
        if place is None:
            return
        place.listening.socket.close()
        if engine is None:
            return
        await self._remove_holder(engine, place)
        if self._bridge and not self._places:
            bridge, self._bridge = self._bridge, None
            await self._remove_bridge(engine, bridge)

    async def aclose(self, engine: Engine | None) -> None:
        await asyncio.gather(*(self.stop_listening(engine, slot) for slot in list(self._places)))

    def has_ended(self, container: str) -> None:
        for place in self._places.values():
            if place.holder == container:
                place.is_lost = True

    async def look_at_all(self, engine: Engine) -> None:
        """Finds what was lost while nobody listened to the engine."""
        for place in list(self._places.values()):
            place.is_lost = place.is_lost or not await self._is_there(engine, place)

    async def holds(self, engine: Engine, listening: Listening) -> bool:
        """Asks the engine: the news that a place is lost may still be on its way."""
        place = next((p for p in self._places.values() if p.listening is listening), None)
        if place is None:
            return False
        with suppress(EngineRefused):
            place.is_lost = place.is_lost or not await self._is_there(engine, place)
        return not place.is_lost

    async def remove_leftovers(self, engine: Engine) -> None:
        """Bridges of an earlier agent, when its containers are gone."""
        try:
            bridges = await engine.networks(self._labels)
        except EngineRefused as error:
            log.warning("cleaning_failed", error=error)
            return
        for bridge in bridges:
            await self._remove_bridge(engine, bridge)

    async def _open(
        self, engine: Engine, info: EngineInfo, slot: int, task_network: NetworkName
    ) -> _Place:
        facts, obstacle = self._facts(engine, info)
        if obstacle is None:
            try:
                return await self._open_namespace(engine, info, facts, slot, task_network)
            except CannotEnter as error:
                # Other slots may have met it meanwhile, in other words.
                obstacle = self._facts(engine, info)[1] or error.obstacle
                self._known = info, facts, obstacle
        place = None
        if has_bridges_here(facts):
            place = await self._open_on_bridge(engine, task_network)
        if place is None:
            place = await asyncio.to_thread(_open_on_host, facts, task_network)
        if task_network == "none":
            self._tell(obstacle, place.listening.isolation)
        return place

    def _facts(self, engine: Engine, info: EngineInfo) -> tuple[Facts, Obstacle | None]:
        # Anew after each connection: it may be another engine, or set up in another way.
        if self._known is None or self._known[0] is not info:
            facts = self._look_around(engine.address, info)
            self._known = info, facts, find_obstacle(facts)
        return self._known[1:]

    def _tell(self, obstacle: Obstacle, isolation: Isolation) -> None:
        if self._told != obstacle:
            self._told = obstacle
            self._on_obstacle(obstacle, isolation)

    async def _open_namespace(
        self,
        engine: Engine,
        info: EngineInfo,
        facts: Facts,
        slot: int,
        task_network: NetworkName,
    ) -> _Place:
        spec = self._holder_spec(info, facts, slot, task_network)
        assert spec.command is not None
        holder = await self._create_holder(engine, info, spec)
        try:
            await engine.start(holder)
            state = await engine.inspect(holder)
            try:
                listener = await listen_inside(
                    state.pid,
                    spec.command,
                    INSIDE_HOST,
                    INSIDE_PORT,
                    in_user_namespace=facts.is_rootless,
                )
            except CannotEnter:
                state = await engine.inspect(holder)
                if state.is_running:
                    raise
                raise _lost(slot, state.error or f"it ended with code {state.exit_code}") from None
        except NotThere as error:
            raise _lost(slot, error.cause) from error
        except BaseException:
            await self._remove_container(engine, holder)
            raise
        listening = Listening(
            listener,
            INSIDE_HOST,
            INSIDE_PORT,
            "namespace" if task_network == "none" else "none",
            network=f"container:{holder}",
        )
        return _Place(listening, task_network, holder=holder)

    def _holder_spec(
        self, info: EngineInfo, facts: Facts, slot: int, task_network: NetworkName
    ) -> ContainerSpec:
        hostname = _hostname(f"{self._name}-{slot}")
        # Without a network nothing tells a program its own machine's address; many ask for it.
        hosts = {hostname: INSIDE_HOST} if task_network == "none" else HOST_GATEWAY
        return ContainerSpec(
            name=f"{self._name}-{slot}-network",
            image=tag_for(info.architecture),
            # The word makes it possible to tell this process from all others of this machine.
            command=[f"/{PROGRAM}", f"{self._name}-{slot}", secrets.token_hex(8)],
            environment={},
            labels=self._labels | HOLDER_LABELS,
            core=None,
            memory_bytes=HOLDER_MEMORY_BYTES if info.can_limit_memory else None,
            pids=HOLDER_PIDS if info.can_limit_pids else None,
            network=task_network,
            hostname=hostname,
            hosts=hosts,
            # The agent's own: a process of another user's cannot be looked at without more rights.
            user="0:0" if facts.is_rootless else f"{os.getuid()}:{os.getgid()}",
            is_bare=True,
        )

    async def _create_holder(self, engine: Engine, info: EngineInfo, spec: ContainerSpec) -> str:
        try:
            return await engine.create_anew(spec)
        except NotThere:
            pass
        async with self._making_shared:
            if await engine.image(spec.image) is None:
                await load_holder_image(engine, info.architecture)
        return await engine.create_anew(spec)

    async def _open_on_bridge(self, engine: Engine, task_network: NetworkName) -> _Place | None:
        if task_network == "bridge":
            bridge = await engine.network(DEFAULT_BRIDGE)
        else:
            bridge = await self._own_bridge(engine)
        if bridge is None or bridge.gateway is None:
            return None
        try:
            listener = _listen(bridge.gateway)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return None
        is_own = task_network == "none"
        listening = Listening(
            listener,
            bridge.gateway,
            listener.getsockname()[1],
            "internal_bridge" if is_own else "none",
            network=bridge.id if is_own else DEFAULT_BRIDGE,
        )
        return _Place(listening, task_network, bridge=bridge.id if is_own else None)

    async def _own_bridge(self, engine: Engine) -> NetworkFacts:
        async with self._making_shared:
            for known in await engine.networks(self._labels):
                bridge = await engine.network(known)
                if bridge:
                    break
            else:
                bridge = await engine.create_network(self._name, self._labels, _BRIDGE_OPTIONS)
            self._bridge = bridge.id
            return bridge

    async def _is_there(self, engine: Engine, place: _Place) -> bool:
        if place.holder:
            with suppress(NotThere):
                return (await engine.inspect(place.holder)).is_running
            return False
        return place.bridge is None or await engine.network(place.bridge) is not None

    async def _remove_holder(self, engine: Engine, place: _Place) -> None:
        if place.holder:
            await self._remove_container(engine, place.holder)

    async def _remove_container(self, engine: Engine, container: str) -> None:
        try:
            async with asyncio.timeout(REMOVED_WITHIN_S):
                await engine.remove(container)
        except NotThere:
            pass
        except (RuntimeUnavailable, EngineRefused, TimeoutError) as error:
            log.warning("remove_failed", container=container[:12], error=error)

    async def _remove_bridge(self, engine: Engine, bridge: str) -> None:
        try:
            async with asyncio.timeout(REMOVED_WITHIN_S):
                await engine.remove_network(bridge)
        except NotThere:
            pass
        except (RuntimeUnavailable, EngineRefused, TimeoutError) as error:
            log.warning("remove_failed", network=bridge[:12], error=error)


def _open_on_host(facts: Facts, task_network: NetworkName) -> _Place:
    if reaches_host_by_alias(facts):
        listener, host = _listen("127.0.0.1"), HOST_ALIAS
    else:
        engine_host = urlsplit(facts.address).hostname
        host = _own_address_towards((engine_host, 9) if engine_host else _SOMEWHERE_ELSE)
        listener = _listen(host)
    port = listener.getsockname()[1]
    return _Place(Listening(listener, host, port, "none", network=DEFAULT_BRIDGE), task_network)


def _own_address_towards(address: tuple[str, int]) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _listen(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((host, 0))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _hostname(name: str) -> str:
    return re.sub("[^a-zA-Z0-9-]", "-", name)[-63:].strip("-")


def _lost(slot: int, cause: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(
        f"opening the network of slot {slot}",
        cause=f"the container that holds it is gone ({cause})",
        next_step="The node tries again",
    )
