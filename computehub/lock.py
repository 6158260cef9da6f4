"""What only one of a hub's replicas may do at a time.

The lock expires when its holder is killed. A holder that is frozen for longer may wake up and go on
beside its successor, so whatever it guards must be harmless when two do it.
"""

from __future__ import annotations

import secrets

from computehub.redis_store import RedisStore


class Lock:
    def __init__(self, store: RedisStore, key: str, *, expires_s: float) -> None:
        self._store = store
        self._key = key
        self._expires_ms = int(expires_s * 1000)
        self._token = secrets.token_hex(8)

    async def hold(self) -> bool:
        """Gets or keeps it; False while it is another's."""
        return bool(
            await self._store.run("hold_lock", [self._key], [self._token, self._expires_ms])
        )

    async def release(self) -> None:
        await self._store.run("release_lock", [self._key], [self._token])
