"""Docker answers; what it says that it can limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from gridnode.doctor.check import Check, ok, problem, warning
from gridnode.runtimes import docker_host
from gridnode.runtimes.docker_engine import Engine, EngineInfo, EngineUnavailable

ENGINE = "engine"
ABILITIES = "abilities"

ENGINE_ANSWERS_WITHIN_S = 15.0
"""To a question that a healthy engine answers in milliseconds, on any machine."""

_NO_ANSWER = f"it takes connections, and says nothing for {ENGINE_ANSWERS_WITHIN_S:.0f} s"


@dataclass(frozen=True)
class FoundEngine:
    address: str
    info: EngineInfo

    @property
    def is_local(self) -> bool:
        return self.address.startswith("unix://")

    @property
    def is_rootless(self) -> bool:
        return "/run/user/" in self.address

    def __str__(self) -> str:
        product = "Podman" if "podman" in self.address else "Docker"
        return f"{product} {self.info.version} ({self.info.architecture}) at {self.address}"


async def find_engine(environment: Mapping[str, str]) -> FoundEngine:
    """The engine that this machine's node would use; raises RuntimeUnavailable with what to do."""
    address = await asyncio.to_thread(docker_host.find, environment)
    # Short: a call of the SDK cannot be cancelled, and would hold up the end of this process.
    async with aclosing(Engine(address, call_timeout_s=ENGINE_ANSWERS_WITHIN_S)) as engine:
        try:
            return FoundEngine(address, await engine.connect())
        except EngineUnavailable as error:
            raise EngineUnavailable(
                f"asking the engine at {address} what it is",
                cause=_NO_ANSWER if "timed out" in error.cause else error.cause,
                next_step="Restart it (Docker: 'sudo systemctl restart docker') and look at its log"
                " ('sudo journalctl -u docker'); check DOCKER_HOST if you have set it",
            ) from error


def judge_engine(found: FoundEngine) -> Check:
    return ok(ENGINE, str(found))


def judge_abilities(info: EngineInfo, *, is_rootless: bool, is_raspberry_pi: bool) -> Check:
    """What the engine says of itself; `limits` tries whether that is true."""
    missing = [
        what
        for what, can in {
            "pin to a core": info.can_pin,
            "limit memory": info.can_limit_memory,
            "limit swap": info.can_limit_swap,
            "limit processes": info.can_limit_pids,
        }.items()
        if not can
    ]
    if not missing:
        return ok(ABILITIES, "can pin to cores, and limit memory, swap and processes")
    judge = warning if info.can_pin and info.can_limit_memory else problem
    return judge(
        ABILITIES,
        f"the engine says that it cannot {', '.join(missing)}",
        fix=how_to_enable_limits(is_rootless=is_rootless, is_raspberry_pi=is_raspberry_pi),
    )


def how_to_enable_limits(*, is_rootless: bool, is_raspberry_pi: bool) -> str:
    if is_rootless:
        return (
            "Delegate the controllers: write '[Service]' and, on a line of its own,"
            " 'Delegate=cpu cpuset io memory pids' into"
            " /etc/systemd/system/user@.service.d/delegate.conf, then run"
            " 'sudo systemctl daemon-reload' and log in again (needs cgroup v2)"
        )
    if is_raspberry_pi:
        return (
            "Append 'cgroup_enable=memory cgroup_memory=1' to the one line of"
            " /boot/firmware/cmdline.txt (on older systems /boot/cmdline.txt), then reboot"
        )
    return (
        "Append 'cgroup_enable=memory swapaccount=1' to GRUB_CMDLINE_LINUX in /etc/default/grub,"
        " then run 'sudo update-grub' and reboot"
    )


def is_raspberry_pi() -> bool:
    try:
        return "Raspberry Pi" in Path("/proc/device-tree/model").read_text(errors="replace")
    except OSError:
        return False
