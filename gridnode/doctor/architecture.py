"""Images for this machine can run on its engine, best without emulation."""

from __future__ import annotations

import platform
import struct
from collections.abc import Collection
from pathlib import Path

from gridcore.platforms import PLATFORMS, platform_of
from gridnode.doctor.check import Check, ok, problem, warning

NAME = "architecture"

BINFMT = Path("/proc/sys/fs/binfmt_misc")

_EMULATOR_OF_PLATFORM = {
    "linux/amd64": "qemu-x86_64",
    "linux/arm64": "qemu-aarch64",
    "linux/arm/v7": "qemu-arm",
}


def check_architecture(
    engine: str | None, configured: str | None, *, engine_is_local: bool
) -> Check:
    """`engine` is the engine's own architecture, None for runtime = "process"."""
    return judge_architecture(
        machine=platform.machine(),
        engine=engine,
        configured=configured,
        emulated=_emulated_platforms() if engine_is_local else None,
        is_32_bit=struct.calcsize("P") == 4,
    )


def judge_architecture(
    *,
    machine: str,
    engine: str | None,
    configured: str | None,
    emulated: Collection[str] | None,
    is_32_bit: bool,
) -> Check:
    """`emulated` are the platforms that the kernel has an emulator for, None if nobody can tell."""
    wanted = platform_of(configured or machine)
    if wanted is None:
        return problem(
            NAME,
            f"no image can be meant for {configured or machine}",
            fix=f"Images exist for {', '.join(PLATFORMS)}",
        )
    runs_on = engine or machine
    if not configured and is_32_bit and wanted == "linux/arm64":
        return warning(
            NAME,
            f"the kernel is {machine}, but this system's programs are 32-bit, and so may be Docker",
            fix='Set architecture = "armv7l" in gridnode.toml, or install a 64-bit system',
        )
    if platform_of(runs_on) == wanted:
        return ok(NAME, f"{wanted}, as the {'engine' if engine else 'machine'}")
    if wanted == "linux/arm/v7" and platform_of(runs_on) == "linux/arm64":
        return ok(NAME, f"{wanted}, which most 64-bit ARM processors run as well")
    means_it = (
        f"Remove 'architecture = \"{configured}\"' from gridnode.toml"
        if configured
        else ("Set DOCKER_HOST to an engine on this machine")
    )
    if engine is None:
        return problem(NAME, f"processes on {machine} are not {wanted}", fix=means_it)
    if emulated is not None and wanted not in emulated:
        return problem(
            NAME,
            f"the engine is {engine}, and nothing here emulates {wanted} for it",
            fix=f"{means_it}, or install an emulator (Debian: 'sudo apt install qemu-user-static"
            " binfmt-support')",
        )
    return warning(
        NAME,
        f"images for {wanted} run under emulation on {engine}, several times slower",
        fix=f"{means_it}, unless it is meant so",
    )


def _emulated_platforms() -> list[str] | None:
    if platform.system() != "Linux":
        return None
    return [name for name, file in _EMULATOR_OF_PLATFORM.items() if _is_registered(BINFMT / file)]


def _is_registered(emulator: Path) -> bool:
    try:
        lines = emulator.read_text().splitlines()
    except OSError:
        return False
    # F: opened when it was registered. Without it the kernel looks for it inside the container.
    return "enabled" in lines and any(line.startswith("flags:") and "F" in line for line in lines)
