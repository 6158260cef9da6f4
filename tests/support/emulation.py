"""Running arm64 containers on a machine of another kind, by qemu in user mode."""

import platform
import shutil
import subprocess
from pathlib import Path

BINFMT = Path("/proc/sys/fs/binfmt_misc")
QEMU = BINFMT / "qemu-aarch64"


def enable_arm64() -> None:
    """Makes the kernel run arm64 programs, for the whole machine; it stays so.

    Raises RuntimeError where that does not work, also where `unavailable_reason()` saw no reason.
    """
    if unavailable_reason() is not None or _runs_arm64():
        return
    if not (BINFMT / "status").exists():
        _run("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    if not _runs_arm64():
        _run("update-binfmts", "--enable", "qemu-aarch64")
    if not _runs_arm64():
        message = f"{QEMU} is not enabled with flag F, so containers cannot use the emulator"
        raise RuntimeError(message)


def unavailable_reason() -> str | None:
    """Why arm64 containers cannot run here, as far as that shows without trying."""
    if _runs_arm64():
        return None
    if platform.system() != "Linux":
        return "arm64 containers: only Linux can be given an emulator here"
    # Only root can register an emulator, and root sees these programs.
    for program in ("update-binfmts", "qemu-aarch64-static", "mount"):
        if shutil.which(program) is None:
            return f"arm64 containers: no {program} on PATH (tests/packages.sh installs it)"
    return None


def _runs_arm64() -> bool:
    if platform.machine() in {"aarch64", "arm64"}:
        return True
    try:
        lines = QEMU.read_text().splitlines()
    except OSError:
        return False
    # F: the kernel opened the emulator when it was registered. Without it the emulator would be
    # looked for inside the container.
    return "enabled" in lines and any(line.startswith("flags:") and "F" in line for line in lines)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"arm64 containers: {' '.join(command)}: {done.stderr.strip()}"
        raise RuntimeError(message)
