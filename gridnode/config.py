"""gridnode.toml: what can be set, the file that a first start writes, and saving the node's id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gridcore import config_file
from gridcore.platforms import PLATFORM_OF_ARCHITECTURE, platform_of
from gridcore.tokens import check_token
from gridcore.wire import Name, RuntimeName

FILE_NAME = "gridnode.toml"

_TEMPLATE = """\
# GridNode's configuration. Fill in the two values below, then start 'gridnode' again.

# Where the hub is, as this machine reaches it.
server_url = "http://hub.example:8080"

# The token from the hub's computehub.toml.
token = ""

# How many containers run at once (default: one per core).
# parallelism = 4

# "docker" isolates what it runs. "process" runs a task's command as plain child processes:
# only for a hub that you trust with this machine.
# runtime = "docker"

# Megabytes of memory for each container; more than that ends it.
# container_memory = 1024

# Seconds between two heartbeats; a hub with a large fleet may ask for more.
# heartbeat_interval = 30

# Seconds that a container gets to finish after SIGTERM.
# stop_timeout = 30

# Run images for another architecture than this machine's, under emulation.
# architecture = "aarch64"
"""


class NodeConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    server_url: str
    token: str
    node_id: Name | None = None
    parallelism: Annotated[int, Field(ge=1, le=4096)] | None = None
    runtime: RuntimeName = "docker"
    container_memory: Annotated[int, Field(ge=16, description="megabytes")] = 1024
    heartbeat_interval: Annotated[float, Field(gt=0, le=3600, strict=False)] = 30.0
    stop_timeout: Annotated[float, Field(ge=0, le=3600, strict=False)] = 30.0
    architecture: str | None = None

    @field_validator("server_url")
    @classmethod
    def _is_a_hub_address(cls, url: str) -> str:
        wanted = 'write it as "http://hub.example:8080"'
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            raise ValueError(wanted) from None
        if not is_address or parts.username or parts.password:
            raise ValueError(wanted)
        if parts.hostname == "hub.example":
            raise ValueError("it is still the example: write your hub's address here")
        return url.rstrip("/")

    @field_validator("token")
    @classmethod
    def _can_be_sent(cls, token: str) -> str:
        return check_token(token)

    @field_validator("architecture")
    @classmethod
    def _is_known(cls, architecture: str | None) -> str | None:
        if architecture and not platform_of(architecture):
            raise ValueError(f"use one of {', '.join(PLATFORM_OF_ARCHITECTURE)}")
        return architecture


def load_or_explain(environment: Mapping[str, str]) -> tuple[NodeConfig, Path]:
    """The configuration and where it lies; a first start writes one and says what to fill in."""
    path = config_file.find(FILE_NAME, environment)
    if path is None:
        path = config_file.candidates(FILE_NAME, environment)[0]
        config_file.write_new(path, _TEMPLATE)
        raise config_file.ConfigError(
            "starting this node for the first time",
            cause=f"it does not know its hub yet; {path} has been written for that",
            next_step="Fill in server_url and token there, then start 'gridnode' again"
            " ('gridnode doctor' checks the rest)",
        )
    return config_file.load(path, NodeConfig), path


def save_node_id(path: Path, node_id: str) -> None:
    """Keeps the hub's name for this machine, and everything that the owner wrote around it."""
    import tomlkit  # used once in a node's life, so it need not stay in memory

    try:
        document = tomlkit.parse(path.read_text("utf-8"))
    except OSError as error:
        raise config_file.ConfigError(
            f"reading {path}", cause=str(error), next_step="Make it readable for this user"
        ) from error
    document["node_id"] = node_id
    config_file.write_new(path, tomlkit.dumps(document))
