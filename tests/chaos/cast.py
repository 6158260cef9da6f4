"""Redis, hubs and nodes: the real programs, and what is found on that Redis in the end."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import redis

from gridcore.lease_queue.keys import QueueKeys
from tests.chaos.stages import Stage
from tests.chaos.verdict import DeadItem, Found
from tests.support.programs import HubProgram, NodeProgram, Program
from tests.support.redis_server import RedisServer

TASK = "chaos"
MAX_ATTEMPTS = 3

_REDIS_SETTINGS = (
    # The whole history stays in one file: evidence, and something to roll back.
    "auto-aof-rewrite-percentage 0",
    "aof-load-truncated yes",
    "aof-timestamp-enabled yes",
    "appendfsync everysec",
)


@dataclass(frozen=True)
class Settings:
    items: int
    seconds: float
    seed: int
    nodes: int = 3
    slots: int = 2
    hubs: int = 2
    lease_s: float = 4.0
    patience_s: float | None = None
    """After which the consumers' clients try again; None: redis-py's own 5 s."""
    style: str = "-"
    """The name of a function in consumer.py; else each start has another one."""
    is_direct: bool = False
    """The contrast: the same consumers straight on Redis."""


class Cast:
    def __init__(self, settings: Settings, stage: Stage, stack: ExitStack) -> None:
        self.stage = stage
        self._settings = settings
        self.is_direct = settings.is_direct
        self.keys = QueueKeys(f"{TASK}:input")
        self.output = f"{TASK}:output"
        self.folder = Path(tempfile.mkdtemp(prefix="gridcore-chaos-"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.redis = stack.enter_context(RedisServer(appendonly=True, settings=_REDIS_SETTINGS))
        self._stack = stack
        self.hubs: list[HubProgram] = []
        self.nodes: list[NodeProgram] = []

    def enter(self, *, redis_url: str, work_s: float) -> None:
        """Hubs and nodes start on what has been pushed; `redis_url` is that of the task."""
        settings = self._settings
        for _ in range(settings.hubs):
            hub = HubProgram(
                redis_url=self.redis.url, node_grace=2, outage_grace=2, lease_time=settings.lease_s
            )
            self.hubs.append(self._stack.enter_context(hub))
        marks = self.folder / "crashed-once"
        marks.mkdir()
        arguments = [
            f"{work_s:.6f}",
            "-" if settings.patience_s is None else f"{settings.patience_s:g}",
            "ends" if settings.is_direct else "-",
            settings.style,
        ]
        options: dict[str, Any] = (
            {"delivery": "direct"} if settings.is_direct else {"max_attempts": MAX_ATTEMPTS}
        )
        self.hubs[0].submit(
            TASK,
            input_redis=redis_url,
            **self.stage.task(marks, *arguments),
            **options,
        )
        for number in range(settings.nodes):
            node = NodeProgram(
                self.hubs[number % settings.hubs].url,
                node_id=f"n{number + 1}",
                parallelism=settings.slots,
                **self.stage.node_settings(),
            )
            self.nodes.append(self._stack.enter_context(node))

    @property
    def programs(self) -> dict[str, Program]:
        named: dict[str, Program] = {f"hub{i + 1}": hub for i, hub in enumerate(self.hubs)}
        return named | {f"n{i + 1}": node for i, node in enumerate(self.nodes)}

    @contextmanager
    def store(self) -> Iterator[Any]:
        """A client without the proxy between."""
        with redis.Redis.from_url(self.redis.url, protocol=2) as client:
            yield client

    def stats(self, store: Any) -> dict[str, int]:
        found = store.hgetall(self.keys.stats)
        return {
            name.decode(): int(value)
            for name, value in found.items()
            if not name.startswith(b"commit:")
        }

    def held(self, store: Any) -> dict[str, int]:
        """How many items each node has, by key."""
        leases = {key: store.hlen(key) for key in self._of_nodes(store, "lease")}
        return leases | {key: store.llen(key) for key in self._of_nodes(store, "inbox")}

    def _of_nodes(self, store: Any, what: Literal["lease", "inbox"]) -> list[str]:
        # Of any nodes: one of ours may have got another id.
        pattern = self.keys.lease("*") if what == "lease" else self.keys.inbox("*")
        return sorted(key.decode() for key in store.scan_iter(match=pattern, count=1_000))

    def left(self, store: Any) -> dict[str, list[bytes]]:
        """The items that are neither done nor dead, by key."""
        keys = self.keys
        found: dict[str, list[bytes]] = {"queue": store.lrange(keys.queue, 0, -1)}
        found["retry"] = [_payload(entry) for entry in store.zrange(keys.retry, 0, -1)]
        for key in self._of_nodes(store, "lease"):
            found[key] = [_payload(entry) for entry in store.hvals(key)]
        for key in self._of_nodes(store, "inbox"):
            found[key] = store.lrange(key, 0, -1)
        return {key: payloads for key, payloads in found.items() if payloads}

    def find(self, pushed: list[bytes]) -> Found:
        with self.store() as store:
            letters = []
            for letter in store.lrange(self.keys.dead, 0, -1):
                header, _, payload = letter.partition(b"\n")
                told = json.loads(header)
                reason = f"{told['report'].get('reason')} {told['report'].get('exit_code')}"
                letters.append(DeadItem(payload, f"{reason}, {told['attempts']} attempts"))
            return Found(
                pushed=pushed,
                results=store.lrange(self.output, 0, -1),
                dead=letters,
                left=self.left(store),
            )

    def keep_evidence(self, folder: Path) -> None:
        for name, program in self.programs.items():
            (folder / f"{name}.log").write_text(program.log)
        shutil.copytree(self.redis.folder, folder / "redis", dirs_exist_ok=True)


def _payload(entry: bytes) -> bytes:
    return entry.partition(b"\n")[2]
