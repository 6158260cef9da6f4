"""Starts the hub's own Redis, adopts one that still runs, restarts it, stops it with the last hub.

The server is no child that dies with its hub: a hub that is killed leaves it running, so that
containers and nodes go on, and the next hub on the same data folder adopts it. Each hub holds a
shared lock on the folder; one that stops in order and finds itself the last holder stops the
server too.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError

from computehub.store import binary, settings
from gridcore.config_file import write_new
from gridcore.errors import GridCoreError
from gridcore.logs import EventLog

START_TIMEOUT_S = 60.0
"""A large append-only file takes its time to load."""

LOOK_EVERY_S = 0.5
ANSWER_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 30.0

log = EventLog("computehub.store")


class StoreDidNotStart(GridCoreError):
    """The server program ended, or did not answer."""


class EmbeddedStore:
    def __init__(self, folder: Path, *, host: str) -> None:
        self._folder = folder
        self._host = host
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._settings = settings.load_or_choose(folder)
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ours = False
        self._shared_lock = os.open(folder / "hubs.lock", os.O_RDWR | os.O_CREAT, 0o600)

    @property
    def url(self) -> str:
        return self._settings.url

    async def start(self) -> None:
        """Returns when the server answers; raises StoreDidNotStart with the end of its log."""
        with await asyncio.to_thread(_locked_alone, self._folder / "start.lock"):
            fcntl.flock(self._shared_lock, fcntl.LOCK_SH)
            self._is_ours = False
            if await self._answers():
                self._is_ours = True
                log.info("store_adopted", port=self._settings.port)
                return
            await self._spawn()

    async def run(self) -> None:
        """Starts the server again whenever it is gone, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if await self._answers():
                continue
            log.warning("store_gone", port=self._settings.port)
            try:
                await self.start()
            except StoreDidNotStart as error:
                log.error("store_start_failed", error=error)

    async def stop(self) -> None:
        """Gives up this hub's share, and stops the server if no other hub holds one."""
        with await asyncio.to_thread(_locked_alone, self._folder / "start.lock"):
            try:
                fcntl.flock(self._shared_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("store_left_to_another_hub", port=self._settings.port)
                return
            finally:
                os.close(self._shared_lock)
            if self._is_ours:
                await self._shut_down()

    async def _spawn(self) -> None:
        program = binary.find_server()
        config = self._folder / "store.conf"
        write_new(config, settings.server_config(self._settings, self._folder, self._host))
        # Its own session: Ctrl-C in a terminal is for the hub, which then stops the server.
        self._child = subprocess.Popen(  # noqa: ASYNC220  forks once; nothing is waited for
            [program, config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o077,  # tasks hold the passwords of their Redis servers
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._answers():
                    if self._child.poll() is not None:
                        raise self._did_not_start(f"it ended with code {self._child.returncode}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise self._did_not_start(f"no answer within {START_TIMEOUT_S:.0f} s") from None
        self._is_ours = True
        log.info("store_started", program=program, port=self._settings.port)

    async def _answers(self) -> bool:
        if self._child is not None:
            self._child.poll()  # leaves no zombie
        try:
            async with self._client() as client, asyncio.timeout(ANSWER_TIMEOUT_S):
                folder = (await client.config_get("dir"))["dir"]
        except BusyLoadingError:
            return False
        except AuthenticationError as error:
            raise self._did_not_start(
                f"another Redis with another password listens on port {self._settings.port}"
            ) from error
        except (RedisError, OSError, TimeoutError):
            return False
        # A server without any password accepts ours as well.
        if not folder or not _is_same(folder, self._folder):
            raise self._did_not_start(
                f"another Redis, with its data in {folder}, listens on port {self._settings.port}"
            )
        return True

    async def _shut_down(self) -> None:
        try:
            async with self._client() as client, asyncio.timeout(STOP_TIMEOUT_S):
                await client.shutdown(nosave=True)  # the append-only file has everything
                if self._child is not None:
                    await asyncio.to_thread(self._child.wait, STOP_TIMEOUT_S)
        except (RedisError, OSError, TimeoutError, subprocess.TimeoutExpired) as error:
            log.warning("store_stop_failed", error=error)
        else:
            log.info("store_stopped", port=self._settings.port)

    def _client(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(
            self.url,
            protocol=2,
            decode_responses=True,
            socket_timeout=None,  # see computehub.redis_store
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )

    def _did_not_start(self, cause: str) -> StoreDidNotStart:
        log_file = self._folder / "store.log"
        try:
            last = log_file.read_text("utf-8", "replace").splitlines()[-1]
        except (OSError, IndexError):
            last = "its log is empty"
        return StoreDidNotStart(
            f"starting the hub's own Redis on port {self._settings.port}",
            cause=f"{cause} (last line of its log: {last})",
            next_step=f"Look into {log_file}; another port can be set in"
            f" {self._folder / 'store.json'}, or another Redis with redis_url in computehub.toml",
        )


def _is_same(folder: str, other: Path) -> bool:
    return os.path.realpath(folder) == os.path.realpath(other)


@contextmanager
def _released(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _locked_alone(path: Path) -> AbstractContextManager[None]:
    """Waits for the lock, and gives a context that releases it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return _released(descriptor)
