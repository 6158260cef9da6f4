"""Reading, hiding and re-addressing redis:// URLs."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit, urlunsplit

from gridcore.errors import GridCoreError


class InvalidRedisURL(GridCoreError, ValueError):
    """A Redis URL that no node could use."""


def check_redis_url(url: str) -> str:
    """The URL itself if a node on another machine could use it."""

    def refuse(cause: str) -> InvalidRedisURL:
        return InvalidRedisURL(
            f"reading the Redis URL {hide_password(url)!r}",
            cause=cause,
            next_step="Write it as redis://:password@host:6379/0 (rediss:// for TLS)",
        )

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refuse("host or port cannot be read") from None
    if parts.scheme not in ("redis", "rediss"):
        raise refuse(f"its scheme is {parts.scheme!r}, not redis or rediss")
    if not parts.hostname:
        raise refuse("it names no host")
    if port == 0:
        raise refuse("port 0 cannot be connected to")
    database = parts.path.strip("/")
    if database and not database.isdigit():
        # Not shown: it may be the rest of a password with a slash in it.
        raise refuse(
            "what follows the host is no database number (in a password write / as %2F, @ as %40)"
        )
    if parts.query or parts.fragment:
        raise refuse("it has a part after the database, which clients read differently")
    return url


def hide_password(url: str) -> str:
    """The URL as a person or a log may see it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = rest.partition("?")[0].partition("#")[0]
    # Up to the last @: a password that should have been percent-encoded is hidden whole, too.
    credentials, at, address = rest.rpartition("@")
    if not at:
        return f"{scheme}{separator}{rest}"
    user, colon, _password = credentials.partition(":")
    shown = f"{user}:***" if colon else "***"
    return f"{scheme}{separator}{shown}@{address}"


def points_at_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def readdress_loopback(url: str, host: str) -> str:
    """The same URL by way of `host`, if it names this machine by its loopback address.

    A hub whose Redis is at 127.0.0.1 tells a node on another machine the address by which that
    node reached the hub; a container's own loopback is not its host's, so it gets the host's name.
    """
    parts = urlsplit(url)
    if not points_at_loopback(parts.hostname or ""):
        return url
    credentials, at, _ = parts.netloc.rpartition("@")
    shown_host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(
        SplitResult(parts.scheme, f"{credentials}{at}{shown_host}{port}", parts.path, "", "")
    )
