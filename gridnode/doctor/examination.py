"""Which check needs which, and all of them at once.

    configuration --+--> hub --> token
                    |     '----> clock
                    |--> engine --> abilities, architecture, disk, limits, isolation
                    |    (with runtime = "process": processes, architecture and the limits)
                    '--> memory

What needs a check that failed is skipped, and says so; all else goes on. Docker is what a node
uses unless its configuration says otherwise, so it is looked for even if that cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gridnode.config import NodeConfig
from gridnode.doctor import (
    architecture,
    clock,
    configuration,
    disk,
    engine,
    hub,
    isolation,
    limits,
    memory,
)
from gridnode.doctor.check import Check, from_error, skipped
from gridnode.doctor.processes import check_processes
from gridnode.runtimes import RuntimeUnavailable

_NO_CONFIGURATION = "the configuration cannot be used"


async def examine(environment: Mapping[str, str]) -> list[Check]:
    """All checks, in the order in which they are shown; reads `environment` as the node does."""
    configured, config = configuration.check_configuration(environment)
    async with asyncio.TaskGroup() as group:
        fleet = group.create_task(_fleet(config))
        runtime = group.create_task(_runtime(config, environment))
    return [configured, *fleet.result(), *runtime.result(), _memory(config)]


async def _fleet(config: NodeConfig | None) -> list[Check]:
    if config is None:
        reached, answer = [skipped(hub.REACHED, _NO_CONFIGURATION)], None
    else:
        reached, answer = await hub.check_hub(config)
    if answer is None:
        names = (hub.TOKEN, clock.NAME)
        return [*reached, *(skipped(name, "the hub was not reached") for name in names)]
    return [*reached, clock.check_clock(answer)]


async def _runtime(config: NodeConfig | None, environment: Mapping[str, str]) -> list[Check]:
    configured = config.architecture if config else None
    if config and config.runtime == "process":
        native = architecture.check_architecture(None, configured, engine_is_local=True)
        unconfined, *held = await check_processes()
        return [unconfined, native, *held]
    try:
        found = await engine.find_engine(environment)
    except RuntimeUnavailable as error:
        rest = (
            engine.ABILITIES,
            architecture.NAME,
            disk.NAME,
            limits.CPU_LIMIT,
            limits.MEMORY_LIMIT,
            isolation.NAME,
        )
        return [
            from_error(engine.ENGINE, error),
            *(skipped(name, "no engine was reached") for name in rest),
        ]
    return [
        engine.judge_engine(found),
        engine.judge_abilities(
            found.info,
            is_rootless=found.is_rootless,
            is_raspberry_pi=engine.is_raspberry_pi(),
        ),
        architecture.check_architecture(
            found.info.architecture, configured, engine_is_local=found.is_local
        ),
        disk.check_disk(found.info.data_folder, engine_is_local=found.is_local),
        *await limits.check_limits(found),
        await isolation.check_isolation(found),
    ]


def _memory(config: NodeConfig | None) -> Check:
    return memory.check_memory(config) if config else skipped(memory.NAME, _NO_CONFIGURATION)
