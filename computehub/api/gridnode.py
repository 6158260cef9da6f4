"""/gridnode: what agents call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from computehub.api.tasks import HubOfApp
from computehub.assignment import Place, assign
from computehub.fleet import unknown_node
from computehub.hub import Hub
from computehub.task_list import Current
from gridcore.logs import EventLog
from gridcore.platforms import platform_of
from gridcore.wire import (
    STOP_HEADER,
    VERSION_HEADER,
    GoodbyeRequest,
    HeartbeatReply,
    HeartbeatRequest,
    Name,
    Platform,
    RegisterReply,
    RegisterRequest,
    RuntimeName,
    TaskConfig,
)

LONGEST_WAIT_S = 60.0

log = EventLog("computehub")
router = APIRouter(prefix="/gridnode", tags=["agents"])


@router.post("/register")
async def register(body: RegisterRequest, request: Request, hub: HubOfApp) -> RegisterReply:
    """Joins the fleet, or joins again; the answer holds the node's id and what runs now."""
    member = await hub.fleet.register(body)
    platform = platform_of(body.architecture)
    log.info(
        "node_registered",
        node=member.node_id,
        hostname=body.hostname,
        platform=platform or body.architecture,
        runtime=body.runtime,
    )
    current = await hub.tasks.current()
    place = Place(platform, body.runtime, _hub_host(request))
    return RegisterReply(
        node_id=member.node_id,
        current_task=_assigned(current, place, hub),
        heartbeat_interval=member.heartbeat_interval_s,
        server_time=member.now_s,
    )


@router.post("/heartbeat")
async def heartbeat(body: HeartbeatRequest, request: Request, hub: HubOfApp) -> HeartbeatReply:
    """A sign of life with a report; 404 tells a node to register again."""
    verdict = await hub.beats.beat(body)
    if not verdict.known:
        raise unknown_node(body.node_id)
    if verdict.superseded:
        if hub.fleet.is_first_of_superseded(body):
            log.warning(
                "node_id_shared",
                node=body.node_id,
                used_by=await hub.fleet.hostname(body.node_id),
                also_by=request.client.host if request.client else "",
            )
        return HeartbeatReply(superseded=True, server_time=verdict.now_s)
    if verdict.was_lost:
        log.info("node_back", node=body.node_id)
    for failure in body.failures:
        log.warning(
            "task_failure",
            node=body.node_id,
            task=failure.task,
            slot=failure.slot,
            reason=failure.reason,
            message=failure.message,
        )
    return HeartbeatReply(
        stop_requested=verdict.stop_requested,
        heartbeat_interval=verdict.heartbeat_interval_s,
        server_time=verdict.now_s,
    )


@router.get("/task")
async def current_task(
    platform: Platform,
    request: Request,
    response: Response,
    hub: HubOfApp,
    wait: Annotated[
        float, Query(ge=0, description="Seconds to wait for a change (60 at most).")
    ] = 0,
    version: Annotated[
        str | None, Query(description="What the node acts on; without it, no wait.")
    ] = None,
    node_id: Annotated[
        Name | None, Query(description="Lets a request to stop end the wait.")
    ] = None,
    runtime: RuntimeName = "docker",
) -> TaskConfig | None:
    """What that kind of node is to work on, or null; a long poll with `wait` and `version`.

    The header GridCore-Task-Version names the version that the answer speaks of, null or not.
    """
    if wait and version is not None:
        current = await hub.changes.wait_until_different(
            version, node_id=node_id, within_s=min(wait, LONGEST_WAIT_S)
        )
    else:
        current = await hub.tasks.current()
    response.headers[VERSION_HEADER] = current.version
    if node_id in current.stops:
        response.headers[STOP_HEADER] = "true"
    place = Place(platform, runtime, _hub_host(request))
    return _assigned(current, place, hub)


@router.post("/goodbye")
async def goodbye(body: GoodbyeRequest, hub: HubOfApp) -> dict[str, str]:
    """Leaves the fleet: the last call of an orderly stop."""
    if await hub.fleet.forget(body.node_id, agent=body.agent):
        log.info("node_left", node=body.node_id)
    return {"message": "Goodbye."}


def _assigned(current: Current, place: Place, hub: Hub) -> TaskConfig | None:
    return assign(current.task, current.version, place, hub.redis_url, lease_s=hub.lease_s)


def _hub_host(request: Request) -> str:
    return request.url.hostname or "127.0.0.1"
