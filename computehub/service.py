"""Starts a hub and stops it in order: polls, then requests, then its own Redis."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn

from computehub.app import create_app
from computehub.config import HubConfig
from computehub.hub import Hub
from computehub.store.embedded import EmbeddedStore
from gridcore.errors import GridCoreError
from gridcore.logs import EventLog

FINISH_REQUESTS_S = 10

KEEP_ALIVE_S = 75
"""Longer than a node's heartbeat interval, so that a heartbeat seldom needs a new connection."""

log = EventLog("computehub")


class AddressInUse(GridCoreError):
    """The hub cannot listen where it is told to."""


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: they have to end the long polls first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(config: HubConfig, store: EmbeddedStore | None) -> None:
    """Runs until SIGTERM or SIGINT; a second one does not wait for requests."""
    listener = _listen(config)
    try:
        if store:
            await store.start()
        redis_url = config.redis_url or (store.url if store else "")
        hub = Hub.connect(
            redis_url,
            node_grace_s=config.node_grace,
            outage_grace_s=config.outage_grace,
            lease_s=config.lease_time,
        )
        await _serve_until_signal(hub, store, config, listener)
    finally:
        listener.close()
        if store:
            await store.stop()


async def _serve_until_signal(
    hub: Hub, store: EmbeddedStore | None, config: HubConfig, listener: socket.socket
) -> None:
    server = _Server(
        uvicorn.Config(
            create_app(hub, token=config.token),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=4096,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=FINISH_REQUESTS_S,
        )
    )

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        hub.changes.close()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(hub.run())]
        if store:
            beside.append(group.create_task(store.run()))
        log.info("hub_started", bind=config.bind)
        await server.serve(sockets=[listener])
        log.info("hub_stopping")
        for task in beside:
            task.cancel()


def _listen(config: HubConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server(
            (config.host, config.port), family=family, backlog=4096, reuse_port=False
        )
    except OSError as error:
        raise AddressInUse(
            f"listening on {config.bind}",
            cause=str(error.strerror or error),
            next_step="Stop what uses that port, or change 'bind' in computehub.toml",
        ) from error
