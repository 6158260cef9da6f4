"""The items that failed too often: listed, exported, given another chance or thrown away.

They lie on the task's own Redis. Walking through them turns the list round once (gridcore's
revive.lua says why), so only one walk at a time may be under way.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Literal

from pydantic import ValidationError
from redis.exceptions import RedisError

from computehub import keys
from computehub.lock import Lock
from computehub.redis_store import RedisStore, StoreUnavailable
from computehub.task_list import TaskConflict, moment
from computehub.task_redis import TaskRedis
from gridcore.lease_queue.queue import DeadLetter, LeaseQueue
from gridcore.wire import (
    DeadLetterChoice,
    DeadLetterList,
    DeadLetterReport,
    DeadLetterView,
    TaskSpec,
)

CALL_TIMEOUT_S = 4.0
"""Below the 5 s that a person is kept waiting for the news that a Redis is away."""

AT_FIRST, AT_ONCE = 10, 500
QUICK_S, SLOW_S = 0.02, 0.1
"""Letters handled by one call: fewer when it was slow, since they may be of any size."""

PREVIEW_CHARACTERS = 1_000
SHOWN_WHOLE_BYTES = 64 * 1024

WALK_EXPIRES_S = 30.0

Settlement = Literal["retry", "discard"]


class DeadLetters:
    def __init__(self, store: RedisStore, hub_redis_url: str) -> None:
        self._store = store
        self._hub_redis_url = hub_redis_url

    async def page(self, task: TaskSpec, *, offset: int, limit: int) -> DeadLetterList:
        """The newest first."""
        found: list[DeadLetterView] = []
        async with self._queue(task, "reading") as (queue, total):
            count = AT_FIRST
            while len(found) < limit:
                began_s = monotonic()
                letters = await queue.dead_letters(
                    offset + len(found), min(count, limit - len(found))
                )
                if not letters:
                    break
                found += [_view(letter, is_whole=False) for letter in letters]
                count = paced(count, monotonic() - began_s)
        return DeadLetterList(
            total=total,
            reasons=Counter(letter.reason or "unknown" for letter in found),
            dead_letters=found,
        )

    async def export(self, task: TaskSpec) -> AsyncIterator[bytes]:
        """A line of JSON for each, the oldest first: new ones come in at the other end."""
        async with self._queue(task, "exporting") as (queue, total):
            done, count = 0, AT_FIRST
            while done < total:
                count = min(count, total - done)
                began_s = monotonic()
                letters = await queue.dead_letters(-done - count, count)
                done, count = done + count, paced(count, monotonic() - began_s)
                for letter in reversed(letters):
                    yield _view(letter, is_whole=True).model_dump_json().encode() + b"\n"

    async def settle(self, task: TaskSpec, how: Settlement, choice: DeadLetterChoice) -> int:
        """How many were meant, and are items again or gone for good."""
        lock = Lock(self._store, keys.SETTLING + task.queues[0], expires_s=WALK_EXPIRES_S)
        if not await lock.hold():
            raise TaskConflict(
                f"settling dead letters of task {task.name!r}",
                cause="another call is walking through them",
                next_step="Try again when that one is done",
            )
        try:
            async with self._queue(task, "settling") as (queue, total):
                return await _walk(queue, total, how, choice, lock)
        finally:
            with suppress(StoreUnavailable):
                await lock.release()

    @asynccontextmanager
    async def _queue(self, task: TaskSpec, verb: str) -> AsyncIterator[tuple[LeaseQueue, int]]:
        """The queue, and how many dead letters it has now."""
        url = task.input_redis or self._hub_redis_url
        async with TaskRedis.opened(url, timeout_s=CALL_TIMEOUT_S) as redis:
            try:
                queue = LeaseQueue(redis, task.queues[0])
                yield queue, int(await redis.execute_command("LLEN", queue.keys.dead))
            except (RedisError, OSError, TimeoutError) as error:
                raise redis.unavailable(f"{verb} dead letters of {task.name!r}", error) from error


async def _walk(
    queue: LeaseQueue, total: int, how: Settlement, choice: DeadLetterChoice, lock: Lock
) -> int:
    act = queue.revive if how == "retry" else queue.discard
    kind: Literal["all", "reason", "id"] = "all"
    values: list[str] = []
    if choice.ids is not None:
        kind, values = "id", choice.ids
    elif choice.reason is not None:
        kind, values = "reason", [choice.reason]
    settled, looked_at, count = 0, 0, AT_FIRST
    while looked_at < total:
        count = min(count, total - looked_at)
        began_s = monotonic()
        settled += await act(kind, values, look_at=count)
        looked_at, count = looked_at + count, paced(count, monotonic() - began_s)
        await lock.hold()
    return settled


def paced(count: int, took_s: float) -> int:
    """How many the next call is to handle, after one that took so long for `count`."""
    if took_s > SLOW_S:
        return max(1, count // 2)
    if took_s < QUICK_S:
        return min(AT_ONCE, count * 2)
    return count


def read_report(written: dict[str, Any]) -> DeadLetterReport:
    """What a node wrote, without what cannot be read: another version may have written it."""
    # A program's last words may hold what no reply can.
    storable = json.loads(json.dumps(written, ensure_ascii=False).encode("utf-8", "replace"))
    try:
        return DeadLetterReport.model_validate(storable)
    except ValidationError as error:
        unreadable = {part["loc"][0] for part in error.errors()}
        return DeadLetterReport.model_validate(
            {field: value for field, value in storable.items() if field not in unreadable}
        )


def _view(letter: DeadLetter, *, is_whole: bool) -> DeadLetterView:
    payload = letter.payload
    at = moment(letter.at_ms)
    assert at is not None
    is_shown_whole = is_whole or len(payload) <= SHOWN_WHOLE_BYTES
    return DeadLetterView(
        **read_report(letter.report).model_dump(),
        id=letter.id,
        node=letter.node,
        attempts=letter.attempts,
        at=at,
        payload_bytes=len(payload),
        payload=_preview(payload),
        payload_base64=base64.b64encode(payload).decode() if is_shown_whole else None,
    )


def _preview(payload: bytes) -> str | None:
    try:
        return payload.decode()[:PREVIEW_CHARACTERS]
    except UnicodeDecodeError:
        return None
