"""Port and password of the hub's own Redis, chosen once and kept in its data folder."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from gridcore.config_file import APPLICATION, write_new

PREFERRED_PORT = 6390
"""Not 6379: a Redis that serves something else is often there."""


@dataclass(frozen=True)
class StoreSettings:
    port: int
    password: str

    @property
    def url(self) -> str:
        # With the user's name: redis-cli 7 does not log in with the short form redis://:password@
        return f"redis://default:{self.password}@127.0.0.1:{self.port}/0"


def data_folder(configured: str | None, environment: Mapping[str, str]) -> Path:
    # systemd names the folder that the unit's StateDirectory= made.
    named = configured or environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir(APPLICATION))


def load(folder: Path) -> StoreSettings | None:
    try:
        return StoreSettings(**json.loads((folder / "store.json").read_text("utf-8")))
    except FileNotFoundError:
        return None


def load_or_choose(folder: Path) -> StoreSettings:
    settings = load(folder)
    if settings is None:
        settings = StoreSettings(port=_free_port(), password=secrets.token_hex(24))
        write_new(folder / "store.json", json.dumps(asdict(settings)) + "\n")
    return settings


def server_config(settings: StoreSettings, folder: Path, host: str) -> str:
    """The server's configuration file; it holds the password, which a command line would show."""
    reachable = {"0.0.0.0": "0.0.0.0", "::": "* -::*"}.get(host, f"127.0.0.1 {host}")
    if host in ("127.0.0.1", "localhost"):
        reachable = "127.0.0.1"
    return "\n".join(
        [
            f"bind {reachable}",
            f"port {settings.port}",
            f"requirepass {settings.password}",
            f'dir "{os.fspath(folder)}"',
            f'logfile "{os.fspath(folder / "store.log")}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "tcp-keepalive 60",
            "daemonize no",
            "",
        ]
    )


def _free_port() -> int:
    for port in (PREFERRED_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("the kernel has no free port")
