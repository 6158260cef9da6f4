"""/api/nodes: the fleet, as a person sees it."""

from __future__ import annotations

from fastapi import APIRouter

from computehub.api.tasks import HubOfApp
from gridcore.logs import EventLog
from gridcore.wire import NodeView

log = EventLog("computehub")
router = APIRouter(prefix="/api/nodes", tags=["nodes"])


@router.get("")
async def list_nodes(hub: HubOfApp) -> list[NodeView]:
    """Every node that is online, or lost and not yet forgotten."""
    return await hub.fleet.nodes()


@router.post("/{node_id}/stop")
async def stop_node(node_id: str, hub: HubOfApp) -> dict[str, str]:
    """Asks a node to stop in order; a waiting node learns it within a second."""
    await hub.fleet.request_stop(node_id)
    log.info("node_stop_requested", node=node_id)
    return {"message": f"Node {node_id!r} is asked to stop."}
