"""Values and who holds them, and where the large ones lie."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from gridcore.sdk.blobs import Blob, to_disk
from gridcore.sdk.driver.records import CallRecord, Entry, Watch
from gridcore.sdk.driver.streams import Streams
from gridcore.sdk.packing import Packed


class Objects:
    """The table of references: number -> Entry. An entry goes with its last holder."""

    def __init__(
        self,
        keep: Callable[[Blob], None],
        release_actor: Callable[[int, int], None],
        streams: Streams,
    ) -> None:
        self._entries: dict[int, Entry] = {}
        self._keep = keep
        self._change_actor = release_actor
        self._streams = streams
        self._is_freeing = False
        self._to_free: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, number: int) -> Entry | None:
        return self._entries.get(number)

    def add(self, number: int, call: CallRecord | None) -> Entry:
        """Held once, by whoever made it."""
        entry = self._entries[number] = Entry(number, call)
        return entry

    def hold(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number < 0:
                self._change_actor(number, 1)
            else:
                entry = self._entries.get(number)
                if entry is not None:
                    entry.count += 1

    def release(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number < 0:
                self._change_actor(number, -1)
                continue
            entry = self._entries.get(number)
            if entry is None:
                continue
            entry.count -= 1
            if entry.count == 0:
                del self._entries[number]
                if entry.packed is not None and entry.packed.refs:
                    # One after the other: a list of a million nested values is no recursion.
                    self._to_free.append(entry)
                if self._streams.by_number and number in self._streams.by_number:
                    self._streams.drop(number)
        if self._to_free and not self._is_freeing:
            self._is_freeing = True
            while self._to_free:
                packed = self._to_free.popleft().packed
                assert packed is not None
                self.release(packed.refs)
            self._is_freeing = False

    def settle(
        self, number: int, packed: Packed, *, is_error: bool
    ) -> tuple[list[CallRecord], list[Watch]]:
        """The value is there; the calls and the waits that needed it."""
        entry = self._entries.get(number)
        if entry is None:  # nobody wants it any more
            return [], []
        if packed.blob is not None:
            self._keep(packed.blob)
        if packed.refs:
            self.hold(packed.refs)
        entry.packed, entry.is_error, entry.call = packed, is_error, None
        dependents, watches = entry.dependents or [], entry.watches or []
        entry.dependents = entry.watches = None
        return dependents, watches


class Keeper:
    """Counts the bytes of blobs, and moves the oldest to disk when they are too many."""

    def __init__(self, limit: int, folder: Path) -> None:
        self._limit = limit
        self._folder = folder
        self._blobs: dict[int, weakref.ref[Blob]] = {}
        self._freed: deque[tuple[int, int]] = deque()
        self._next = 0
        self.in_memory = 0
        self.on_disk = 0
        """Bytes moved there in all."""

    def add(self, blob: Blob) -> None:
        self._settle()
        self._next += 1
        place, size, freed = self._next, blob.size, self._freed
        # The callback may run in any thread and in the middle of anything: it only takes a note.
        self._blobs[place] = weakref.ref(blob, lambda _: freed.append((place, size)))
        self.in_memory += size
        if self.in_memory > self._limit:
            self._make_room()

    def _make_room(self) -> None:
        for place, ref in list(self._blobs.items()):
            if self.in_memory <= self._limit:
                return
            blob = ref()
            if blob is None:
                continue
            try:
                to_disk(blob, self._folder)
            except OSError:
                return  # the disk is full as well: memory is what there is
            del self._blobs[place]
            self.in_memory -= blob.size
            self.on_disk += blob.size

    def _settle(self) -> None:
        while self._freed:
            place, size = self._freed.popleft()
            if self._blobs.pop(place, None) is not None:
                self.in_memory -= size
