"""Which streams are waited for, by whom, and from which entry on. No I/O, no clock.

One question to Redis serves all who wait: each key once, from the earliest id that anybody has
seen. So who waits is told only that it is worth a look, and looks by himself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

StreamId = tuple[int, int]
"""Milliseconds and number; what is later is larger."""

StreamIds = Mapping[bytes, StreamId]
"""By key, the last entry that is known."""


@dataclass(frozen=True, eq=False)
class StreamWatch:
    streams: WatchedStreams
    ids: StreamIds
    then: Callable[[], None]
    """Called once, when there may be something later; perhaps for nothing."""

    def cancel(self) -> None:
        self.streams.forget(self)


class WatchedStreams:
    def __init__(self) -> None:
        self._watches: dict[StreamWatch, None] = {}

    def watch(self, ids: StreamIds, then: Callable[[], None]) -> StreamWatch:
        watch = StreamWatch(self, ids, then)
        self._watches[watch] = None
        return watch

    def forget(self, watch: StreamWatch) -> None:
        self._watches.pop(watch, None)

    def union(self) -> dict[bytes, StreamId]:
        found: dict[bytes, StreamId] = {}
        for watch in self._watches:
            for key, last in watch.ids.items():
                found[key] = min(last, found.get(key, last))
        return found

    def came(self, keys: Iterable[bytes]) -> None:
        """These streams have entries that somebody does not know."""
        new = set(keys)
        for watch in [watch for watch in self._watches if not new.isdisjoint(watch.ids)]:
            # Whoever is told may call off others.
            if watch in self._watches:
                del self._watches[watch]
                watch.then()


def covers(asked: StreamIds, ids: StreamIds) -> bool:
    """Whoever asks for `asked` hears of all that is later than `ids`."""
    return all(key in asked and asked[key] <= last for key, last in ids.items())
