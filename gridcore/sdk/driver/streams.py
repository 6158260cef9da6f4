"""Calls that return one value after the other: what has come, what was asked for, who waits.

A value belongs to its stream until its consumer asks for the next one, so an answer that is lost on
the way, or asked for twice, does no harm. A call that is repeated yields from the start; the worker
leaves out as many values as are here, so that each index comes once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from gridcore.sdk.driver.records import CallRecord, Peer, Stream
from gridcore.sdk.errors import TaskCancelled
from gridcore.sdk.outcomes import ANY_ATTEMPT, packed_error
from gridcore.sdk.packing import Packed
from gridcore.sdk.workers.streams import MOST_AHEAD, MOST_BYTES_AHEAD

if TYPE_CHECKING:
    from gridcore.sdk.driver.core import Core


class Streams:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_number: dict[int, Stream] = {}
        """By the number of the reference to its end."""

    def open(self, call: CallRecord) -> None:
        """It lives as long as somebody has a reference to its end."""
        call.stream = Stream(call)
        self.by_number[call.results[0]] = call.stream

    # What consumers ask

    def ask(self, number: int, index: int) -> Stream:
        """Who asks for one has all before it."""
        stream = self.by_number[number]
        while stream.first < index and stream.numbers:
            stream.first += 1
            self._core.objects.release((stream.numbers.popleft(),))
        if index >= stream.asked:
            stream.asked = index + 1
            self._make_room(stream)
        return stream

    def want_all(self, stream: Stream) -> None:
        """Somebody waits for its end, and would for ever if its values waited for consumers."""
        if stream.asked != math.inf:
            stream.asked = math.inf
            self._make_room(stream)

    def when_there(self, stream: Stream, index: int, do: Callable[[], object]) -> None:
        if stream.is_there(index):
            do()
        else:
            stream.waits.append((index, do))

    def drop(self, number: int) -> None:
        """Nobody will ask for more: its generator is closed where it next yields."""
        stream = self.by_number.pop(number)
        stream.waits.clear()
        self._core.objects.release(stream.numbers)
        call = stream.call
        if not stream.is_over and call.ends_as is None:
            self._core.stop(call, packed_error(TaskCancelled.of(call.name)), order="e")

    # What producers say

    def on_value(self, peer: Peer, number: int, index: int, packed: Packed) -> None:
        stream = self.by_number.get(number)
        if stream is None:
            self._core.place.tell(peer, ("e", number, ANY_ATTEMPT))
        elif index == stream.received and not stream.is_over:
            core = self._core
            (value,) = core.new_numbers(1)
            core.put(value, packed)
            stream.numbers.append(value)
            self._wake(stream)

    def when_room(self, number: int, do: Callable[[int, int], None]) -> None:
        """Tells a producer how many values and bytes it may send, as soon as it may."""
        stream = self.by_number.get(number)
        if stream is None or stream.call.ends_as is not None:
            do(0, 0)
        else:
            stream.producers.append(do)
            self._make_room(stream)

    def let_go(self, stream: Stream) -> None:
        """Its producer is to stop: it need not wait any longer."""
        producers, stream.producers = stream.producers, []
        for do in producers:
            do(0, 0)

    def ended(self, stream: Stream, *, is_error: bool) -> None:
        stream.is_over, stream.is_failed = True, is_error
        self._wake(stream)

    def _wake(self, stream: Stream) -> None:
        if stream.waits:
            due = [do for index, do in stream.waits if stream.is_there(index)]
            stream.waits = [wait for wait in stream.waits if not stream.is_there(wait[0])]
            for do in due:
                do()

    def _make_room(self, stream: Stream) -> None:
        """Only when half of it is free: fewer messages, each for more values."""
        if not stream.producers:
            return
        ahead = stream.received - min(stream.asked, stream.received)
        size = 0
        for number in list(stream.numbers)[len(stream.numbers) - int(ahead) :]:
            entry = self._core.objects.find(number)
            if entry is not None and entry.packed is not None:
                size += entry.packed.size
        if ahead > MOST_AHEAD // 2 or size > MOST_BYTES_AHEAD // 2:
            return
        producers, stream.producers = stream.producers, []
        for do in producers:
            do(MOST_AHEAD - int(ahead), MOST_BYTES_AHEAD - size)
