"""May this hub reap? Only one may, and only after a lease time of service (no I/O)."""

from __future__ import annotations


class Licence:
    def __init__(self, *, lease_s: float, lock_s: float) -> None:
        self._lease_s = lease_s
        self._lock_s = lock_s
        self._until_s = 0.0
        self._served_s = 0.0

    def renew(self, asked_s: float, *, served_s: float) -> None:
        """The lock was this hub's when it asked for it."""
        self._until_s = asked_s + self._lock_s
        self._served_s = served_s

    def withdraw(self) -> None:
        self._until_s = 0.0

    def is_held(self, now_s: float) -> bool:
        """This hub is the one, or none is; it may still have to wait."""
        return now_s < self._until_s

    def permits(self, now_s: float, *, reached_s: float) -> bool:
        """`reached_s` is for how long nodes could have renewed at the Redis in question."""
        return self.is_held(now_s) and min(self._served_s, reached_s) >= self._lease_s
