"""The base of every error that a person may read.

GridCoreError
├── ConfigError            a configuration file is wrong (gridcore.config_file)
├── InvalidRedisURL        a Redis URL cannot be used (gridcore.redis_urls)
├── HubError               the hub refused or did not answer (gridnode.hub_client)
├── RuntimeUnavailable     Docker is not there (gridnode.runtimes)
└── StoreUnavailable       Redis is not there (computehub.redis_store)
"""

from __future__ import annotations

EXIT_CONFIG = 78
"""A start that cannot succeed before a person has changed something (sysexits' EX_CONFIG): the
systemd units do not try again."""


class GridCoreError(Exception):
    """Says what was tried, why it probably failed, and what to do next."""

    exit_code = 1
    """Of a program that ends with this error."""

    def __init__(self, tried: str, *, cause: str, next_step: str) -> None:
        super().__init__(tried, cause, next_step)
        self.tried = tried
        self.cause = cause
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.tried}: {self.cause}. {self.next_step}"
