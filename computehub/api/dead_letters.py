"""/api/tasks/{name}/dead-letters: the items of a task that failed too often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from computehub.api.tasks import HubOfApp
from computehub.task_redis import TaskRedisUnavailable
from gridcore.logs import EventLog
from gridcore.wire import DeadLetterChoice, DeadLetterCount, DeadLetterList

MOST_SHOWN = 500

log = EventLog("computehub")
router = APIRouter(prefix="/api/tasks/{name}/dead-letters", tags=["dead letters"])


@router.get("")
async def list_dead_letters(
    name: str,
    hub: HubOfApp,
    offset: Annotated[int, Query(ge=0, description="How many of the newest to skip.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_SHOWN, description="500 at most.")] = 50,
) -> DeadLetterList:
    """The items that failed too often, the newest first, with the last failure of each."""
    record = await hub.tasks.get(name)
    return await hub.dead_letters.page(record.spec, offset=offset, limit=limit)


@router.post("/retry")
async def retry_dead_letters(name: str, choice: DeadLetterChoice, hub: HubOfApp) -> DeadLetterCount:
    """Gives them another chance: they are items again, with no attempt counted."""
    record = await hub.tasks.get(name)
    count = await hub.dead_letters.settle(record.spec, "retry", choice)
    log.info("dead_letters_retried", task=name, count=count)
    return DeadLetterCount(count=count)


@router.post("/discard")
async def discard_dead_letters(
    name: str, choice: DeadLetterChoice, hub: HubOfApp
) -> DeadLetterCount:
    """Throws them away for good."""
    record = await hub.tasks.get(name)
    count = await hub.dead_letters.settle(record.spec, "discard", choice)
    log.info("dead_letters_discarded", task=name, count=count)
    return DeadLetterCount(count=count)


class _Lines(StreamingResponse):
    """Breaks off when it cannot go on: cut short, it must not look complete to its reader."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except TaskRedisUnavailable as error:
            log.warning("export_broken", error=error)


@router.get("/export", response_class=StreamingResponse)
async def export_dead_letters(name: str, hub: HubOfApp) -> StreamingResponse:
    """All of them, the oldest first: a line of JSON for each, with the whole payload in base64."""
    record = await hub.tasks.get(name)
    lines = hub.dead_letters.export(record.spec)
    # The first before the answer begins: a Redis that is away can still be told of.
    first = await anext(lines, b"")
    return _Lines(_with_first(first, lines), media_type="application/x-ndjson")


async def _with_first(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for line in others:
        yield line
