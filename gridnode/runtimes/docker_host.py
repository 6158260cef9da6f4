"""Where a Docker engine (or Podman's service) may be, and what to do when there is none."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping

from gridnode.runtimes import RuntimeUnavailable

CONNECT_TIMEOUT_S = 5.0


class NoEngine(RuntimeUnavailable):
    """Nothing listens where an engine may be."""


def candidates(environment: Mapping[str, str]) -> list[str]:
    """The addresses to try, in order; $DOCKER_HOST alone if it is set."""
    named = environment.get("DOCKER_HOST")
    if named:
        return [named]
    home = environment.get("HOME", "")
    runtime_folder = environment.get("XDG_RUNTIME_DIR", "")
    sockets = ["/var/run/docker.sock"]
    if runtime_folder:
        sockets += [f"{runtime_folder}/docker.sock", f"{runtime_folder}/podman/podman.sock"]
    if home:
        sockets += [f"{home}/.docker/run/docker.sock", f"{home}/.orbstack/run/docker.sock"]
    sockets.append("/run/podman/podman.sock")
    return [f"unix://{path}" for path in sockets]


def find(environment: Mapping[str, str]) -> str:
    """The first address where something listens; raises NoEngine with what to do."""
    addresses = candidates(environment)
    refusals: list[OSError] = []
    for address in addresses:
        path = address.removeprefix("unix://")
        if path == address:
            return address  # tcp:// or ssh://: the engine's own client tells what is wrong
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(CONNECT_TIMEOUT_S)
                probe.connect(path)
        except OSError as error:
            error.filename = path
            refusals.append(error)
        else:
            return address
    raise explain(
        refusals,
        docker_host=environment.get("DOCKER_HOST"),
        is_macos=sys.platform == "darwin",
        is_installed=_is_installed(),
        user=_user(),
    )


def explain(
    refusals: list[OSError],
    *,
    docker_host: str | None,
    is_macos: bool,
    is_installed: bool,
    user: str,
) -> NoEngine:
    """What to do about it, on this machine."""
    tried = "connecting to Docker at " + ", ".join(str(e.filename) for e in refusals)
    for error in refusals:
        if isinstance(error, PermissionError):
            return NoEngine(
                tried,
                cause=f"user {user} has no permission for {error.filename}",
                next_step=f"Run 'sudo usermod -aG docker {user}' and log in again (that group can"
                " do all that root can), or use rootless Docker or Podman",
            )
    if docker_host:
        return NoEngine(
            tried,
            cause=f"DOCKER_HOST is set to {docker_host}, and there {refusals[0].strerror}",
            next_step="Correct DOCKER_HOST or unset it, or start that engine",
        )
    if is_macos:
        return NoEngine(
            tried,
            cause="nothing listens there",
            next_step="Start Docker Desktop or OrbStack (or set DOCKER_HOST), and try again",
        )
    start = (
        "Start it with 'sudo systemctl start docker'"
        if is_installed
        else "Install it (Debian: 'sudo apt install docker.io')"
    )
    return NoEngine(
        tried,
        cause="Docker is installed but does not run" if is_installed else "no engine is there",
        next_step=f"{start}; for Podman run 'systemctl --user enable --now podman.socket';"
        " for another place set DOCKER_HOST",
    )


def _is_installed() -> bool:
    # Debian has it in /usr/sbin, which is not on everybody's PATH.
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
