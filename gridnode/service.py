"""Puts an agent together from its configuration, and runs it until a signal or the hub ends it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from gridcore import __version__
from gridcore.config_file import ConfigError
from gridcore.errors import GridCoreError
from gridcore.logs import EventLog
from gridcore.platforms import PLATFORMS, platform_of
from gridcore.wire import RegisterRequest, TaskConfig
from gridnode.agent import Agent
from gridnode.config import NodeConfig, save_node_id
from gridnode.cores import plan_slots, usable_cores
from gridnode.crew import Workplace
from gridnode.delivery import Delivery, DirectDelivery
from gridnode.gateway.leased import LeasedDelivery
from gridnode.hub_client import HubClient
from gridnode.membership import Membership
from gridnode.report import Report
from gridnode.runtimes import Runtime

log = EventLog("gridnode")


class AlreadyRunning(GridCoreError):
    """Two agents with one id would remove each other's containers."""


class UnknownArchitecture(GridCoreError):
    """No image can be meant for this machine."""


async def serve(config: NodeConfig, path: Path, environment: Mapping[str, str]) -> None:
    """Runs a node until SIGTERM, SIGINT or the hub ends it in order; a second signal ends it
    hard: containers are killed, and nobody is told."""
    lock = _lock(path)
    serving = asyncio.create_task(_serve(config, path, environment))
    try:
        await serving
    except asyncio.CancelledError:
        if not serving.cancelled():
            raise
        log.warning("stopped_hard")
    finally:
        os.close(lock)


async def _serve(config: NodeConfig, path: Path, environment: Mapping[str, str]) -> None:
    """One agent; and if its id turns out to be another machine's, too, the next under a new one."""
    while True:
        signalled = asyncio.Event()
        has_lost_id = await _run_agent(config, path, environment, signalled)
        if signalled.is_set() or not has_lost_id:
            return
        config = config.model_copy(update={"node_id": None})


async def _run_agent(
    config: NodeConfig, path: Path, environment: Mapping[str, str], signalled: asyncio.Event
) -> bool:
    """True if it ended because another agent has its id now."""
    architecture = config.architecture or platform.machine()
    image_platform = platform_of(architecture)
    if image_platform is None:
        raise UnknownArchitecture(
            f"starting a node on {architecture}",
            cause="no image can be meant for such a machine",
            next_step=f"Images exist for {', '.join(PLATFORMS)}",
        )
    slots = plan_slots(usable_cores(), os.cpu_count() or 1, config.parallelism)
    report = Report(slots)
    registration = RegisterRequest(
        node_id=config.node_id,
        hostname=socket.gethostname(),
        architecture=architecture,
        cpu_count=os.cpu_count() or 1,
        runtime=config.runtime,
        parallelism=len(slots),
        container_memory=config.container_memory,
        version=__version__,
        heartbeat_interval=config.heartbeat_interval,
        agent=secrets.token_hex(8),
    )
    async with HubClient.connect(config.server_url, config.token) as hub:
        membership = Membership(
            hub,
            report,
            registration,
            platform=image_platform,
            on_node_id=lambda node_id: _keep_node_id(path, node_id),
        )
        await _join_or_give_up(membership)
        runtime = _runtime(config, membership.node_id, image_platform, environment)

        def deliver(task: TaskConfig, on_problem: Callable[[str | None], None]) -> Delivery:
            if task.delivery == "direct":
                return DirectDelivery(task, host_alias=runtime.host_alias, on_problem=on_problem)
            return LeasedDelivery(
                task,
                node_id=membership.node_id,
                runtime=runtime,
                report=report,
                on_problem=on_problem,
            )

        workplace = Workplace(
            node_id=membership.node_id,
            slots=slots,
            stop_timeout_s=config.stop_timeout,
            runtime=runtime,
            report=report,
            announcer=membership,
            deliver=deliver,
        )
        agent = Agent(membership, runtime, report, workplace)
        _on_signals(agent, signalled)
        try:
            await agent.run()
        finally:
            await runtime.aclose()
        return membership.superseded.is_set() and not membership.stop_requested.is_set()


async def _join_or_give_up(membership: Membership) -> None:
    """Joining can take for ever; nothing has to be put in order when it is given up."""
    this = asyncio.current_task()
    assert this is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, this.cancel)
    await membership.join()


def _on_signals(agent: Agent, signalled: asyncio.Event) -> None:
    this = asyncio.current_task()
    assert this is not None
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        if signalled.is_set():
            this.cancel()
        signalled.set()
        agent.stop(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)


def _runtime(
    config: NodeConfig, node_id: str, image_platform: str, environment: Mapping[str, str]
) -> Runtime:
    if config.runtime == "process":
        from gridnode.runtimes.process import ProcessRuntime

        return ProcessRuntime(node_id=node_id, memory_mb=config.container_memory)
    # The Docker SDK costs 12 MB, which a process node can spare.
    from gridnode.runtimes import docker_host
    from gridnode.runtimes.docker import DockerRuntime
    from gridnode.runtimes.docker_engine import Engine

    return DockerRuntime(
        lambda: Engine(docker_host.find(environment)),
        node_id=node_id,
        platform=image_platform,
        memory_mb=config.container_memory,
    )


def _keep_node_id(path: Path, node_id: str) -> None:
    try:
        save_node_id(path, node_id)
    except ConfigError as error:
        # It works, but the hub will give another id after the next start.
        log.warning("node_id_not_saved", node=node_id, error=error)


def _lock(path: Path) -> int:
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        lock = os.open(path, os.O_RDONLY)  # a folder that only root may write
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyRunning(
            f"starting a node with {path}",
            cause="an agent with this configuration runs already",
            next_step="Stop that one first; a second node on this machine needs a configuration"
            " of its own (IDM_GRIDCORE_CONFIG)",
        ) from None
    return lock
