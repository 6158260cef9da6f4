"""computehub.toml: what can be set, and the file that a first start writes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gridcore import config_file
from gridcore.lease_queue.times import LEASE_S
from gridcore.redis_urls import check_redis_url
from gridcore.tokens import check_token

FILE_NAME = "computehub.toml"

_TEMPLATE = """\
# ComputeHub's configuration. It was written at the first start; change what you like and restart.

# Where the hub listens. "127.0.0.1:8080" keeps it on this machine.
bind = "0.0.0.0:8080"

# Whoever has this token can submit tasks and join as a node. Keep it secret; to change it,
# write another one here and in every gridnode.toml, then restart.
token = "{token}"

# The Redis that holds tasks, nodes and, unless a task names another, the queues.
# Nodes connect to it as well. Without this line the hub runs a Redis of its own.
# redis_url = "redis://:password@redis.example:6379/0"

# Where the hub's own Redis keeps its data (default: the user's data folder).
{data_dir}

# Seconds after a missed heartbeat until a node is lost.
# node_grace = 10

# Seconds after an outage of hub or Redis in which no node is declared lost.
# outage_grace = 180

# Seconds without a sign of life at the task's Redis after which a node's items go back to the
# queue; also after an outage of hub or Redis. Nodes learn it with their next task. The same in
# every replica of the hub.
# lease_time = 30
"""


class HubConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bind: str = "0.0.0.0:8080"
    token: Annotated[str, Field(min_length=8)]
    redis_url: str | None = None
    data_dir: str | None = None
    node_grace: Annotated[float, Field(gt=0, strict=False)] = 10.0
    outage_grace: Annotated[float, Field(ge=0, strict=False)] = 180.0
    lease_time: Annotated[float, Field(ge=1, le=3600, strict=False)] = LEASE_S

    @field_validator("bind")
    @classmethod
    def _has_host_and_port(cls, bind: str) -> str:
        host, colon, port = bind.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65_536:
            raise ValueError('write it as "host:port", for example "0.0.0.0:8080"')
        return bind

    @field_validator("redis_url")
    @classmethod
    def _is_usable(cls, redis_url: str | None) -> str | None:
        return check_redis_url(redis_url) if redis_url else None

    @field_validator("token")
    @classmethod
    def _can_be_sent(cls, token: str) -> str:
        return check_token(token)

    @property
    def host(self) -> str:
        return self.bind.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.bind.rpartition(":")[2])


def _new_file(environment: Mapping[str, str]) -> str:
    # Under systemd only the service itself is told its folder: written down, it is also known to
    # who asks for 'computehub redis-url'.
    folder = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    data_dir = f'data_dir = "{folder}"' if folder else '# data_dir = "/var/lib/computehub"'
    return _TEMPLATE.format(token=secrets.token_urlsafe(32), data_dir=data_dir)


def load_or_create(environment: Mapping[str, str]) -> tuple[HubConfig, Path, bool]:
    """The configuration, where it lies, and whether it was written just now."""
    path = config_file.find(FILE_NAME, environment)
    is_new = path is None
    if path is None:
        path = config_file.candidates(FILE_NAME, environment)[0]
        config_file.write_new(path, _new_file(environment))
    return config_file.load(path, HubConfig), path, is_new
