"""What keeps a task's containers from the network here: the node's own way, tried for real."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing

from gridcore.errors import GridCoreError
from gridcore.wire import Isolation
from gridnode.doctor.check import Check, from_error, ok, problem, warning
from gridnode.doctor.engine import FoundEngine
from gridnode.runtimes.docker_engine import Engine
from gridnode.runtimes.isolation import Obstacle, look_around
from gridnode.runtimes.slot_networks import SlotNetworks

NAME = "isolation"

LABEL = "io.gridcore.probe.network"

TRIED_WITHIN_S = 60.0
"""As long as one container may take on a poor SD card, and a network."""

_FIX = "Look at the engine's log ('sudo journalctl -u docker'); no task can start while this fails"


async def check_isolation(found: FoundEngine) -> Check:
    """What it makes on the engine is gone afterwards, but for an image of 200 bytes."""
    try:
        async with asyncio.timeout(TRIED_WITHIN_S):
            return judge_isolation(*await _try_out(found))
    except GridCoreError as error:
        return from_error(NAME, error)
    except TimeoutError:
        return problem(NAME, f"no answer within {TRIED_WITHIN_S:.0f} s", fix=_FIX)


def judge_isolation(isolation: Isolation, obstacle: Obstacle | None) -> Check:
    if obstacle is None:
        return ok(NAME, "a container reaches the gateway of its slot, and nothing else")
    reaches = (
        "what listens on this machine"
        if isolation == "internal_bridge"
        else "all that this machine does"
    )
    return warning(NAME, f"a container also reaches {reaches}: {obstacle.why}", fix=obstacle.remedy)


async def _try_out(found: FoundEngine) -> tuple[Isolation, Obstacle | None]:
    obstacles: list[Obstacle] = []
    run = secrets.token_hex(6)
    networks = SlotNetworks(
        f"gridcore-probe-{run}",
        {LABEL: run},
        look_around=look_around,
        on_obstacle=lambda obstacle, _: obstacles.append(obstacle),
    )
    async with aclosing(Engine(found.address)) as engine:
        info = await engine.connect()
        try:
            place = await networks.listen(engine, info, 0, "none")
        finally:
            await asyncio.shield(networks.aclose(engine))
    return place.isolation, next(iter(obstacles), None)
