"""/api/tasks: what the fleet is to work on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from computehub.hub import Hub
from computehub.waiting_for import why_nobody_can
from gridcore.logs import EventLog
from gridcore.redis_urls import hide_password, readdress_loopback
from gridcore.wire import Finished, Moved, Submitted, TaskDetails, TaskList, TaskQueues, TaskSpec

FAILURES_SHOWN = 20

log = EventLog("computehub")
router = APIRouter(prefix="/api/tasks", tags=["tasks"])


# async, though it awaits nothing: FastAPI runs a plain function in a thread, for each request.
async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


HubOfApp = Annotated[Hub, Depends(_hub)]


@router.post("", status_code=201)
async def submit_task(spec: TaskSpec, hub: HubOfApp) -> Submitted:
    """Adds a task to the line. If no task runs, it starts at once."""
    position = await hub.tasks.submit(spec)
    log.info("task_submitted", task=spec.name, position=position)
    input_queue, output_queue = spec.queues
    waiting_for = None if position else why_nobody_can(spec, await hub.fleet.nodes())
    return Submitted(
        name=spec.name,
        state="pending" if position else "running",
        position=position,
        input_queue=input_queue,
        output_queue=output_queue,
        waiting_for=waiting_for,
    )


@router.get("")
async def list_tasks(hub: HubOfApp) -> TaskList:
    """What runs, what waits, what is done."""
    return await hub.tasks.overview()


@router.post("/next")
async def go_to_next_task(hub: HubOfApp) -> Moved:
    """Ends the running task and moves the whole fleet to the next one; 400 if none waits."""
    move = await hub.tasks.go_to_next()
    log.info("task_next", previous=move.left or "", current=move.started or "")
    return Moved(previous=move.left, current=move.started)


@router.post("/finish")
async def finish_task(hub: HubOfApp) -> Finished:
    """Ends the running task; the next one starts if there is any. 400 if none runs."""
    move = await hub.tasks.finish()
    assert move.left is not None
    log.info("task_finished", task=move.left, started=move.started or "")
    then = f"{move.started!r} has started" if move.started else "nothing else is waiting"
    return Finished(
        completed=move.left,
        started=move.started,
        message=f"Task {move.left!r} is completed; {then}.",
    )


@router.get("/{name}")
async def show_task(name: str, hub: HubOfApp) -> TaskDetails:
    """All about one task, with the lengths of its queues and its latest failures."""
    record, tasks = await hub.tasks.get(name), await hub.tasks.overview()
    fleet = await hub.fleet.nodes()
    nodes = [n for n in fleet if n.task == name and n.status == "Online"]
    spec, is_running = record.spec, tasks.current == name
    input_redis = spec.input_redis or hub.redis_url
    input_queue, output_queue = spec.queues
    waiting_or_done = "pending" if name in tasks.pending else "completed"
    return TaskDetails(
        name=name,
        state="running" if is_running else waiting_or_done,
        image=spec.image,
        images=spec.images,
        command=spec.command,
        input_redis=hide_password(input_redis),
        output_redis=hide_password(spec.output_redis or input_redis),
        input_queue=input_queue,
        output_queue=output_queue,
        auto_advance=spec.auto_advance,
        delivery=spec.delivery,
        ack=spec.ack,
        item_timeout=spec.item_timeout,
        max_attempts=spec.max_attempts,
        alone_after_failure=spec.alone_after_failure,
        keys=spec.keys,
        constants=spec.constants,
        network=spec.network,
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        completed_at=record.completed_at,
        queues=await hub.queues.lengths(spec),
        nodes=len(nodes),
        active_containers=sum(n.active_containers for n in nodes),
        failures=await hub.fleet.failures(name, most=FAILURES_SHOWN),
        waiting_for=why_nobody_can(spec, fleet) if is_running else None,
    )


@router.get("/{name}/queues")
async def find_queues(name: str, request: Request, hub: HubOfApp) -> TaskQueues:
    """Where to push items and take results, password included: who has the token may."""
    spec = (await hub.tasks.get(name)).spec
    host = request.url.hostname or "127.0.0.1"
    input_redis = spec.input_redis or hub.redis_url
    input_queue, output_queue = spec.queues
    return TaskQueues(
        input_redis=readdress_loopback(input_redis, host),
        output_redis=readdress_loopback(spec.output_redis or input_redis, host),
        input_queue=input_queue,
        output_queue=output_queue,
    )


@router.delete("/{name}")
async def delete_task(
    name: str,
    hub: HubOfApp,
    force: Annotated[bool, Query(description="Even if it runs: it is finished first.")] = False,
) -> dict[str, str]:
    """Forgets a task. Its queues stay as they are. 409 while it runs, unless ?force=true."""
    await hub.tasks.delete(name, even_if_running=force)
    log.info("task_deleted", task=name, force=force)
    return {"deleted": name}
