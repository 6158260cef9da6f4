"""What keeps a run from the network on this machine: decided from facts, without trying anything.

    namespace   runs have loopback and the gateway's socket on it, which the agent opens inside
                their namespace of the network: it must be on the engine's machine and may enter it
    bridge      runs share an internal bridge, and the gateway is at the bridge's own address: that
                must be an address of this machine. Services of this machine are in reach
    host        the engine's usual network; the gateway is where a run can reach this machine

`namespaces` finds out whether a way in that should work does; here is what is known before.
"""

from __future__ import annotations

import os
import platform
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from gridnode.runtimes.docker_engine import EngineInfo
from gridnode.runtimes.holder_image import is_there_one_for

_CAP_SYS_ADMIN = 21


@dataclass(frozen=True)
class Facts:
    address: str
    """The engine's."""
    architecture: str
    engine_kernel: str
    is_rootless: bool
    """The engine runs in a user's own namespaces, and so do its bridges."""
    is_linux: bool
    kernel: str
    may_enter: bool
    """The agent has CAP_SYS_ADMIN, or is the user whose namespaces a rootless engine runs in."""

    @property
    def is_by_socket(self) -> bool:
        return self.address.startswith("unix://")

    @property
    def is_same_system(self) -> bool:
        # An engine that does not say has to be tried.
        is_same_kernel = self.engine_kernel in ("", self.kernel)
        return self.is_by_socket and self.is_linux and is_same_kernel


@dataclass(frozen=True)
class Obstacle:
    """What is in the way of the namespace."""

    why: str
    remedy: str


def look_around(address: str, info: EngineInfo) -> Facts:
    return Facts(
        address=address,
        architecture=info.architecture,
        engine_kernel=info.kernel,
        is_rootless=info.is_rootless,
        is_linux=sys.platform == "linux",
        kernel=platform.release(),
        may_enter=_owns(address) if info.is_rootless else _has_cap_sys_admin(),
    )


def find_obstacle(facts: Facts) -> Obstacle | None:
    if not facts.is_by_socket:
        return Obstacle(
            f"the engine is at {facts.address}, which may be another machine",
            "Run the node on the engine's machine, and let it use the engine's socket",
        )
    if not facts.is_same_system:
        return Obstacle(
            f"the engine is in a virtual machine (its kernel is {facts.engine_kernel}, this"
            f" system's {facts.kernel})",
            "Run the node on Linux, beside its engine",
        )
    if not is_there_one_for(facts.architecture):
        return Obstacle(
            f"there is no program for {facts.architecture} to hold a slot's network",
            "Use a machine that images can be meant for",
        )
    if not facts.may_enter and facts.is_rootless:
        return Obstacle(
            "the engine is another user's, and rootless",
            "Run the node as the user whose engine it is",
        )
    if not facts.may_enter:
        return Obstacle(
            "the agent does not run as root, nor with CAP_SYS_ADMIN",
            "Start it by deploy/gridnode.service, which gives it that, or use rootless Docker",
        )
    return None


def has_bridges_here(facts: Facts) -> bool:
    """The engine's bridges are interfaces of this system, as far as that shows."""
    return facts.is_same_system and not facts.is_rootless


def reaches_host_by_alias(facts: Facts) -> bool:
    """An engine in a virtual machine forwards that name to the loopback of what is around it."""
    return facts.is_by_socket and not facts.is_same_system


def _has_cap_sys_admin() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next((line for line in status.splitlines() if line.startswith("CapEff:")), "")
    return bool(int(effective.partition(":")[2] or "0", 16) >> _CAP_SYS_ADMIN & 1)


def _owns(address: str) -> bool:
    try:
        found = Path(address.removeprefix("unix://")).stat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()
